"""Loads a run's parameters, for commands that only read them."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from llm_jax.config import RunConfig, UserError, read_config, require_shape
from llm_jax.config.extensions import is_own_code
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import parameter_shapes
from llm_jax.runs.places import run_file
from llm_jax.train.damage import saved_steps, shared_damage
from llm_jax.train.failures import Damaged, reason, without_tensorstore_noise
from llm_jax.train.finite import require_finite
from llm_jax.train.manifest import (
    MANIFEST,
    damage_sentence,
    first_damage,
    require_regular,
    unchecked_sentence,
)
from llm_jax.train.optimizers.schedule_free import (
    is_masked,
    is_schedule_free,
    schedule_free_average,
)
from llm_jax.train.plain import key_of, plain, unplain
from llm_jax.train.run_folder import check_format
from llm_jax.train.state import optimizer_of
from llm_jax.train.stored import StoredItem


@dataclass(frozen=True)
class Run:
    """A trained model for `eval`, `generate` and `export`. The parameters are float32; with
    `schedule_free`, they are the average."""

    config: RunConfig
    step: int
    params: dict[str, Any]
    tokenizer: Tokenizer
    verified: bool
    """Whether its files were compared with the checkpoint's manifest."""
    notes: tuple[str, ...] = ()
    """Sentences about what was read."""


def load_run(
    folder: str | Path,
    step: int | None = None,
    *,
    verify: bool = True,
    where: Any = None,
    trust_code: bool = False,
    shared: bool = False,
) -> Run:
    """The parameters of a run's checkpoint `step` (the newest by default).

    Args:
      where: tree of shardings for the parameters, or a function of the run's config that returns
        one or None; None: all are on one device.
      verify: compare the files that are read with the sizes and checksums in the checkpoint's
        manifest. Nothing in the run's folder is changed.
      trust_code: run the code that `model.kind` names, if it is not an installed part.
      shared: all processes of a run call this, and divide the comparison among them.

    Raises:
      UserError: there is no run or no such checkpoint, a weight is not a finite number, or the
        run's folder has another tokenizer than the checkpoint.
      Damaged: the checkpoint's files have changed or cannot be read.
    """
    found = find(folder, step, verify=verify, trust_code=trust_code, shared=shared)
    where = where(found.config) if callable(where) else where
    try:
        params = _params(found, where)
        if found.averages:
            params = _averaged(found.checkpoint, found.config, params)
    except Exception as error:  # Orbax raises no narrower one
        raise found.unreadable(error) from error
    require_finite(params, found.name, found.way_out)
    return Run(found.config, found.step, params, found.tokenizer, found.verified)


def _params(found: Found, where: Any) -> Any:
    """The parameters, on the devices that `where` says, or on one."""
    if where is None:
        params = StoredItem(found.checkpoint / "params").whole(found.shapes)
        return jax.device_put(params, SingleDeviceSharding(jax.local_devices()[0]))
    # The devices it was saved on may not exist here, so the target names its own.
    target = jax.tree.map(_placed, found.shapes, where)
    return _item(found.checkpoint, "params", ocp.args.StandardRestore(target))


@dataclass(frozen=True)
class Found:
    """A checkpoint whose files were verified, if asked for, and whose arrays were not read."""

    folder: Path
    config: RunConfig
    step: int
    steps: list[int]
    tokenizer: Tokenizer
    verified: bool

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / str(self.step)

    @property
    def name(self) -> str:
        return f"Checkpoint {self.step} of the run in {str(self.folder)!r}"

    @property
    def way_out(self) -> str:
        others = _others(self.step, self.steps)
        return f"give another one with --step ({others})" if others else "train the model again"

    @functools.cached_property
    def shapes(self) -> Any:
        """The parameters as `jax.ShapeDtypeStruct`, in float32."""
        return parameter_shapes(self.config.model)

    @property
    def averages(self) -> bool:
        """Whether the optimizer has an average that stands for the parameters."""
        return self.config.optim.kind == "schedule_free" and (self.checkpoint / "opt").exists()

    def unreadable(self, error: Exception) -> Damaged:
        why = f"it cannot be read: {reason(error)}"
        return Damaged(f"{_sentence(self.folder, self.step, self.steps, why)}.")


def find(
    folder: str | Path, step: int | None, *, verify: bool, trust_code: bool, shared: bool
) -> Found:
    """The checkpoint that `load_run` is asked for; raises as it does, but for the weights."""
    folder = Path(folder).absolute()
    config = read_config(run_file(folder), RunConfig)
    if is_own_code("model.kind", config.model.kind) and not trust_code:
        raise UserError(
            f"The model of the run in {str(folder)!r} is code, {config.model.kind!r}: read it, "
            "then pass --trust-code (trust_code=True) to run it."
        )
    require_regular(folder / "checkpoints")
    steps = sorted(saved_steps(folder / "checkpoints"))
    if not steps:
        raise UserError(f"The run in {str(folder)!r} has no checkpoint yet: train it first.")
    step = steps[-1] if step is None else step
    if step not in steps:
        known = ", ".join(map(str, steps))
        raise UserError(f"The run has no checkpoint of step {step}: it has {known}.")
    tokenizer = Tokenizer.load(folder)
    verified = verify and _verified(folder, step, steps, config, shared)
    found = Found(folder, config, step, steps, tokenizer, verified)
    if verify:
        try:
            record = _record(found.checkpoint)
        except Exception as error:  # Orbax raises no narrower one
            raise found.unreadable(error) from error
        check_format(record, found.name)
        _check_tokenizer(record["tokenizer_sha256"], tokenizer, folder, step)
    return found


def _verified(folder: Path, step: int, steps: list[int], config: RunConfig, shared: bool) -> bool:
    """True if the files to be read are undamaged. If there is no manifest: a warning, False."""
    checkpoint = folder / "checkpoints" / str(step)
    if not (checkpoint / MANIFEST).exists():
        print(f"warning: {unchecked_sentence(step)}", file=sys.stderr)
        return False
    averaged = config.optim.kind == "schedule_free"
    look = shared_damage if shared else first_damage
    place = look(checkpoint, items={"params", "opt"} if averaged else {"params"})
    if place is not None:
        why = damage_sentence(checkpoint, place)
        if shared:
            raise Damaged(
                f"Checkpoint {step} of the run in {str(folder)!r} is damaged ({why}): restore it "
                "from a copy, or begin with another one (--init RUN@STEP)."
            )
        sentence = _sentence(folder, step, steps, why)
        raise Damaged(f"{sentence}, or read it as it is with --no-verify.")
    return True


def _item(checkpoint: Path, item: str, args: ocp.args.CheckpointArgs) -> Any:
    """One item of a checkpoint, without Orbax's notes about it and about other checkpoints.

    Args:
      args: what Orbax restores the item by.
    """
    handler = ocp.checkpoint_args.get_registered_handler_cls(args)
    with without_tensorstore_noise(), ocp.Checkpointer(handler()) as reader:
        return reader.restore(checkpoint / item, args=args)


def _record(checkpoint: Path) -> dict[str, Any]:
    """What is noted with the arrays: the `format`, and the digest of the tokenizer."""
    record = _item(checkpoint, "meta", ocp.args.JsonRestore())
    require_shape(record, {"format": int, "tokenizer_sha256": str}, "meta")
    return record


def _check_tokenizer(was: str, tokenizer: Tokenizer, folder: Path, step: int) -> None:
    if was != tokenizer.sha256:
        raise UserError(
            f"The tokenizer in {str(folder)!r} is not the one that checkpoint {step} was trained "
            f"with ({was[:12]}, now {tokenizer.sha256[:12]}): restore it, or read it as it is with "
            "--no-verify."
        )


def _sentence(folder: Path, step: int, steps: list[int], why: str) -> str:
    others = _others(step, steps)
    way = f"give another one with --step ({others})" if others else "restore it from a copy"
    return f"Checkpoint {step} of the run in {str(folder)!r} is damaged ({why}): {way}"


def _others(step: int, steps: list[int]) -> str:
    return ", ".join(str(other) for other in reversed(steps) if other != step)


def _placed(leaf: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def average_of(config: RunConfig, params: Any) -> tuple[Any, Any] | None:
    """The path of the average in the optimizer's state, and its node there; None if it has none."""
    opt = jax.eval_shape(optimizer_of(config).init, params)
    nodes = jax.tree_util.tree_leaves_with_path(opt, is_leaf=is_schedule_free)
    return next(((path, node) for path, node in nodes if is_schedule_free(node)), None)


def _averaged(checkpoint: Path, config: RunConfig, params: Any) -> Any:
    """`params`, averaged if the optimizer averages. Only z and b1 of its state are read."""
    average = average_of(config, params)
    if average is None:
        return params
    path, node = average
    wanted = {"b1": node.b1, "z": node.z}
    here = jax.tree.leaves(params)[0].sharding
    everywhere = NamedSharding(here.mesh, PartitionSpec()) if hasattr(here, "mesh") else here
    z = jax.tree.map(
        lambda z, y: z if is_masked(z) else _placed(z, y.sharding),
        node.z,
        params,
        is_leaf=is_masked,
    )
    target = plain({"b1": _placed(node.b1, everywhere), "z": z})
    for entry in reversed(path):
        target = {key_of(entry): target}
    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    restore = ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True)
    made = _item(checkpoint, "opt", restore)
    for entry in path:
        made = made[key_of(entry)]
    return schedule_free_average(params, **unplain(made, wanted))
