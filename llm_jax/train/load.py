"""A run's parameters, for verbs that only read them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from llm_jax.config import RunConfig, UserError, from_json
from llm_jax.model import transformer
from llm_jax.train.optimizer import is_schedule_free, schedule_free_average
from llm_jax.train.plain import key_of, plain, unplain
from llm_jax.train.state import optimizer_of
from llm_jax.train.trouble import no_orbax_noise

logging.getLogger("absl").addFilter(no_orbax_noise)


@dataclass(frozen=True)
class Run:
    """A trained model as `eval`, `generate` and `export` need it: float32 parameters, for
    `schedule_free` the average."""

    config: RunConfig
    step: int
    params: dict[str, Any]
    tokenizer_path: Path


def load_run(folder: str | Path, step: int | None = None) -> Run:
    """The parameters of a run's checkpoint `step` (the newest by default), on one device.

    Raises:
      UserError: no run, no checkpoint, or not that one.
    """
    folder = Path(folder).absolute()
    if not (folder / "run.json").is_file():
        raise UserError(f"There is no run in {str(folder)!r}: give the `out` folder of a run.")
    config = from_json((folder / "run.json").read_text(encoding="utf-8"), RunConfig)
    options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
    with ocp.CheckpointManager(folder / "checkpoints", options=options) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise UserError(f"The run in {str(folder)!r} has no checkpoint yet: train it first.")
        step = steps[-1] if step is None else step
        if step not in steps:
            known = ", ".join(map(str, steps))
            raise UserError(f"The run has no checkpoint of step {step}: it has {known}.")
        # The devices it was saved on may not exist here, so the target names its own.
        here = SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.eval_shape(lambda: transformer.init(config.model, jax.random.key(0)))
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes
        )
        restore = ocp.args.Composite(params=ocp.args.StandardRestore(target))
        params = manager.restore(step, args=restore)["params"]
        if (folder / "checkpoints" / str(step) / "opt").exists():
            params = _judged(manager, step, config, params)
    return Run(config, step, params, folder / "tokenizer.model")


def _judged(manager: ocp.CheckpointManager, step: int, config: RunConfig, params: Any) -> Any:
    """`params` of a checkpoint, averaged if the optimizer does; of its state z and b1 are read."""
    opt = jax.eval_shape(optimizer_of(config).init, params)
    nodes = jax.tree_util.tree_leaves_with_path(opt, is_leaf=is_schedule_free)
    averages = [(path, node) for path, node in nodes if is_schedule_free(node)]
    if not averages:
        return params
    path, node = averages[0]
    wanted = {"b1": node.b1, "z": node.z}
    here = SingleDeviceSharding(jax.local_devices()[0])
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)  # noqa: E731
    target = plain(jax.tree.map(place, wanted))
    for entry in reversed(path):
        target = {key_of(entry): target}
    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    restore = ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True)
    made = manager.restore(step, args=ocp.args.Composite(opt=restore))["opt"]
    for entry in path:
        made = made[key_of(entry)]
    return schedule_free_average(params, **unplain(made, wanted))
