"""Checkpoints on each host's own disk, between those in the run's folder.

A run whose folder is in a bucket or on a slow file system cannot save there often. In between, each
process writes what its devices hold to its host's disk. If a trainer fails and all hosts are still
there, the run resumes from these checkpoints. If a host is replaced, its disk is gone, and the run
resumes from its folder.

    <local>/<name>-<id>/<process>/<step>/shards/state.safetensors
    <local>/<name>-<id>/<process>/<step>/manifest.json    size and checksum

The id is drawn when a run begins (`<out>/local_id`), so a new run of the same name never uses the
steps of an old one. A step is used only if every process has it undamaged, with exactly the parts
of arrays that its devices need. On another mesh or number of hosts it is not used.
"""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llm_jax.config import RunConfig
from llm_jax.runs.files import write_text
from llm_jax.train.failures import reason
from llm_jax.train.manifest import damage_sentence, first_damage, write_manifest
from llm_jax.train.state import State

# Two, because one host may have written the newest while another was killed during its write.
KEPT = 2
ID_FILE = "local_id"
FILE = "shards/state.safetensors"
Index = tuple[slice, ...]


class LocalCheckpoints:
    """This process's part of the checkpoints on the hosts' own disks.

    If a disk fails, they end with one warning on stderr, and the run continues.

    Attributes:
      usable: steps that all processes have undamaged, newest first; set by `look`.
    """

    def __init__(self, config: RunConfig) -> None:
        assert config.checkpoint.local is not None
        root = Path(config.checkpoint.local).expanduser().absolute()
        self.run = root / f"{config.name}-{_run_id(Path(config.out)):08x}"
        self.folder = self.run / str(jax.process_index())
        self.usable: list[int] = []
        self._off = False
        self._thread: threading.Thread | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for unfinished in self.folder.glob(".*"):
                shutil.rmtree(unfinished)
        except OSError as error:
            self._switch_off(error)

    def look(self, abstract: State) -> None:
        """Finds the steps that can be restored to the shapes and shardings of `abstract`."""
        mine = [] if self._off else [step for step in self._steps() if self._whole(step, abstract)]
        row = np.full(KEPT, -1, np.int32)
        row[: len(mine[:KEPT])] = mine[:KEPT]
        everyone = np.atleast_2d(multihost_utils.process_allgather(row))
        common = set.intersection(*(set(steps) for steps in everyone.tolist())) - {-1}
        self.usable = sorted(common, reverse=True)

    def _steps(self) -> list[int]:
        return sorted((int(path.name) for path in self.folder.glob("[0-9]*")), reverse=True)

    def _whole(self, step: int, abstract: State) -> bool:
        place = first_damage(self.folder / str(step))
        if place is not None:
            why = damage_sentence(self.folder / str(step), place)
            _warn(f"checkpoint {step} in {self.folder} is damaged ({why}): it is not used.")
            return False
        try:
            with safe_open(self.folder / str(step) / FILE, framework="np") as file:
                return set(file.keys()) == set(_needed(abstract))
        except (OSError, SafetensorError):
            return False

    def restore(self, abstract: State, step: int) -> State:
        """The state of `step`, one of `usable`, with the shardings of `abstract`."""
        with safe_open(self.folder / str(step) / FILE, framework="np") as file:

            def read(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
                where = leaf.sharding.addressable_devices_indices_map(leaf.shape)
                names = {device: _name(path, leaf, index) for device, index in where.items()}
                parts = {name: file.get_tensor(name) for name in set(names.values())}
                shape = leaf.sharding.shard_shape(leaf.shape)
                placed = [
                    jax.device_put(parts[name].view(leaf.dtype).reshape(shape), device)
                    for device, name in names.items()
                ]
                return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, placed)

            return jax.tree_util.tree_map_with_path(read, abstract)

    def save(self, state: State, step: int) -> None:
        """Copies this process's part to memory. A thread writes it after this has returned."""
        self.wait()
        if self._off:
            return
        for leaf in jax.tree.leaves(state):
            leaf.copy_to_host_async()
        held: dict[str, np.ndarray] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            for shard in leaf.addressable_shards:
                name = _name(path, leaf, shard.index)
                if name not in held:  # a copy, since the array is donated to the next step
                    held[name] = np.array(shard.data).reshape(-1).view(np.uint8)
        self._thread = threading.Thread(target=self._write, args=(held, step))
        self._thread.start()

    def has(self, step: int) -> bool:
        """Whether this process's part of `step` is written."""
        return not self._off and (self.folder / str(step) / FILE).is_file()

    def _write(self, held: dict[str, np.ndarray], step: int) -> None:
        unfinished, whole = self.folder / f".{step}", self.folder / str(step)
        try:
            (unfinished / FILE).parent.mkdir(parents=True, exist_ok=True)
            save_file(held, unfinished / FILE)
            write_manifest(unfinished)
            shutil.rmtree(whole, ignore_errors=True)
            unfinished.rename(whole)
            for old in self._steps()[KEPT:]:
                shutil.rmtree(self.folder / str(old))
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            self._switch_off(error)

    def _switch_off(self, error: Exception) -> None:
        self._off = True
        _warn(
            f"no more checkpoints in {self.folder} ({reason(error)}): the run continues, and saves "
            "only in its own folder."
        )

    def wait(self) -> None:
        """Returns when what was saved is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def forget(self, step: int | None = None) -> None:
        """Deletes the checkpoints up to `step`, which the run's folder now has; all of them if
        `step` is None."""
        self.wait()
        try:
            for old in self._steps():
                if step is None or old <= step:
                    shutil.rmtree(self.folder / str(old))
            if not self._steps():
                self.folder.rmdir()
                self.run.rmdir()
        except OSError:
            return  # other processes of this machine still have theirs; or the disk has failed


def _warn(sentence: str) -> None:
    # Any process prints it, not only process 0.
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


def _run_id(out: Path) -> int:
    """The number that process 0 drew for this run. All processes get the same."""
    drawn = np.int32(0)
    if jax.process_index() == 0:
        file = out / ID_FILE
        if not file.exists():
            drawn = np.random.default_rng().integers(1, 2**31 - 1, dtype=np.int32)
            write_text(file, f"{drawn}\n")
        drawn = np.int32(file.read_text(encoding="utf-8"))
    return int(multihost_utils.broadcast_one_to_all(drawn))


def _needed(abstract: State) -> set[str]:
    return {
        _name(path, leaf, index)
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
        for index in leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
    }


def _name(path: Any, leaf: Any, index: Index) -> str:
    """Name of a part of an array, such as `['params']['x'] f32 [0:4]/8`. Equal names are equal
    parts."""
    spans = (part.indices(size)[:2] for part, size in zip(index, leaf.shape, strict=True))
    place = ", ".join(f"{start}:{stop}" for start, stop in spans)
    whole = ",".join(map(str, leaf.shape))
    return f"{jax.tree_util.keystr(path)} {leaf.dtype} [{place}]/{whole}"
