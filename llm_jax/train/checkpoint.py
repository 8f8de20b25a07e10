"""Checkpoints: Orbax, asynchronous, a plain nested dict of arrays beside a JSON record.

    <out>/run.json, <out>/tokenizer.model
    <out>/checkpoints/<step>/params    tree of the model
    <out>/checkpoints/<step>/opt       optimizer state, nested dicts with the names of its fields
    <out>/checkpoints/<step>/meta      config, step, data order, tokenizer hash, library versions

No NNX or optax object is stored, so the files outlive both libraries. Orbax writes a step under a
temporary name and renames it when it is whole: an interrupted save never looks like a checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from llm_jax.config import ConfigError, RunConfig, UserError, from_dict, from_json, to_dict, to_json
from llm_jax.model import transformer
from llm_jax.train.state import State, fresh_optimizer

FORMAT = 1
# Orbax logs, with a traceback for each of its threads, the errors that it raises as well.
logging.getLogger("absl").addFilter(
    lambda record: not (record.exc_info and "orbax" in record.pathname)
)
VERSIONED = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece")


def plain(tree: Any) -> dict[str, Any]:
    """Any pytree as nested dicts keyed by field name, key or index."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = (_key(entry) for entry in path)
        place = nested
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = leaf
    return nested


def unplain(nested: dict[str, Any], template: Any) -> Any:
    """Inverse of `plain`: the leaves of `nested` in the structure of `template`."""

    def pick(path: Any, _: Any) -> Any:
        place = nested
        for entry in path:
            place = place[_key(entry)]
        return place

    return jax.tree_util.tree_map_with_path(pick, template)


def _key(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    raise TypeError(f"no name for tree entry {entry!r}")


class Checkpointer:
    """Saves and restores the training state of one run."""

    def __init__(self, config: RunConfig, tokenizer_sha256: str) -> None:
        self.config = config
        self.tokenizer_sha256 = tokenizer_sha256
        self.folder = Path(config.out).absolute() / "checkpoints"
        self.folder.mkdir(parents=True, exist_ok=True)
        policy = config.checkpoint
        options = ocp.CheckpointManagerOptions(
            max_to_keep=policy.keep_last,
            keep_period=policy.keep_every,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def latest_step(self) -> int | None:
        """Newest whole checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, state: State, step: int) -> None:
        """Starts saving; arrays are copied before this returns, files are written after.

        Raises:
          UserError: this save, or the one before it, could not be written.
        """
        meta = {
            "format": FORMAT,
            "stacked_layers": True,
            "step": step,
            "config": to_dict(self.config),
            "data": {"seed": self.config.data.seed, "next_step": step},
            "tokenizer_sha256": self.tokenizer_sha256,
            "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        }
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(state["params"]),
            opt=ocp.args.StandardSave(plain(state["opt"])),
            meta=ocp.args.JsonSave(meta),
        )
        with self._explained():
            self._manager.save(step, args=args)

    def wait(self) -> None:
        """Returns when everything saved is on disk; raises as `save` does."""
        with self._explained():
            self._manager.wait_until_finished()

    def restore(self, abstract: State, step: int) -> State:
        """The state of `step`, on the mesh and shardings of `abstract`.

        Raises:
          ConfigError: the checkpoint holds another architecture or belongs to another tokenizer.
        """
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))[
            "meta"
        ]
        self._check(meta)
        items = {"params": ocp.args.StandardRestore(abstract["params"])}
        if self.has_optimizer(step):
            items["opt"] = ocp.args.StandardRestore(plain(abstract["opt"]))
        made = self._manager.restore(step, args=ocp.args.Composite(**items))
        if self.has_optimizer(step):
            opt = unplain(made["opt"], abstract["opt"])
        else:
            opt = fresh_optimizer(self.config, abstract, made["params"])
        counter = jax.device_put(np.int32(step), abstract["step"].sharding)
        return {"params": made["params"], "opt": opt, "step": counter}

    def has_optimizer(self, step: int) -> bool:
        """Whether the checkpoint can be gone on from as it was; imported weights cannot."""
        return (self.folder / str(step) / "opt").exists()

    def close(self) -> None:
        with self._explained():
            self._manager.close()

    def _check(self, meta: dict[str, Any]) -> None:
        saved = from_dict(meta["config"], RunConfig)
        changes = differences(saved.model, self.config.model, "model")
        if changes:
            raise ConfigError(
                f"The run in {self.config.out} was trained with another architecture "
                f"({'; '.join(changes)}): restore these fields, or choose another `out`."
            )
        check_tokenizer(self.config.out, meta["tokenizer_sha256"], self.tokenizer_sha256)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns a failed write into `FileTrouble`."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            raise FileTrouble(self.config.out, error) from error


class FileTrouble(UserError):
    """A full disk, a lost mount, a missing right: one sentence that says what survives.

    Writes that Orbax has begun cannot be finished, so the program leaves without waiting for them.
    """

    abandons_threads = True

    def __init__(self, out: str, error: Exception) -> None:
        whole = ocp.path.step.standard_name_format().find_all(Path(out).absolute() / "checkpoints")
        good = max((found.step for found in whole), default=None)
        kept = "it has no checkpoint yet" if good is None else f"its checkpoint {good} is whole"
        super().__init__(
            f"The run in {out} could not read or write a file ({reason(error)}); {kept}: free "
            "space or mend the disk, then run the same command to go on from there."
        )


def reason(error: Exception) -> str:
    """What the system says in one line, such as "No space left on device"."""
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's way to pass an errno on
    if isinstance(error, OSError) or code is None:
        return " ".join(str(error).split())[:200]
    return os.strerror(int(code[1]))


def check_tokenizer(out: str, saved: str, now: str) -> None:
    """Raises `ConfigError` unless both SHA-256 digests are the same."""
    if saved != now:
        raise ConfigError(
            f"The run in {out} was trained with another tokenizer ({saved[:12]}, now {now[:12]}): "
            "use the dataset it was trained on, or choose another `out`."
        )


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(old: Any, new: Any, where: str) -> list[str]:
    """Fields in which two configs of one class differ, as `where.field old → new`."""
    a, b = to_dict(old), to_dict(new)
    found: list[str] = []
    for name in a:
        if (
            isinstance(a[name], dict)
            and isinstance(b[name], dict)
            and a[name].keys() == b[name].keys()
        ):
            inner = [
                f"{where}.{name}.{k} {v!r} → {b[name][k]!r}"
                for k, v in a[name].items()
                if v != b[name][k]
            ]
            found += inner
        elif a[name] != b[name]:
            found.append(f"{where}.{name} {a[name]!r} → {b[name]!r}")
    return found


@dataclass(frozen=True)
class Run:
    """A trained model as `eval`, `generate` and `export` need it."""

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
    return Run(config, step, params, folder / "tokenizer.model")


def claim_folder(config: RunConfig, tokenizer_path: Path) -> list[str]:
    """Makes `config.out` the folder of this run, or checks that it is; returns what has changed.

    Raises:
      ConfigError: the folder holds something else, or a run of another name, architecture
        or tokenizer.
    """
    out = Path(config.out)
    record = out / "run.json"
    changes: list[str] = []
    if record.is_file():
        old = from_json(record.read_text(encoding="utf-8"), RunConfig)
        if old.name != config.name:
            raise ConfigError(
                f"run.out is {config.out}, which belongs to run {old.name!r}, not {config.name!r}: "
                "choose another folder."
            )
        changes = differences(old, config, "run")
        model = [change for change in changes if change.startswith("run.model.")]
        if model:
            raise ConfigError(
                f"The run in {config.out} has another architecture ({'; '.join(model)}): restore "
                "these fields, or choose another `out`."
            )
        theirs = out / "tokenizer.model"
        if theirs.is_file():
            check_tokenizer(config.out, file_sha256(theirs), file_sha256(tokenizer_path))
    elif out.is_dir() and any(not _expected(path) for path in out.iterdir()):
        raise ConfigError(
            f"run.out is {config.out}, which is not empty and holds no run: choose another folder."
        )
    if jax.process_index() == 0:
        out.mkdir(parents=True, exist_ok=True)
        temporary = out / "run.json.tmp"
        temporary.write_text(to_json(config), encoding="utf-8")
        temporary.replace(record)
        if not (out / "tokenizer.model").exists():
            shutil.copyfile(tokenizer_path, out / "tokenizer.model.tmp")
            (out / "tokenizer.model.tmp").replace(out / "tokenizer.model")
    return changes


def _expected(path: Path) -> bool:
    """Whether a launcher, the sign of life that it watches, or a start that was killed or is just
    happening in another process, put this into the run's folder."""
    return path.name in ("launch", "run.json.tmp") or path.name.startswith("status.")
