"""Checksums of a checkpoint's files, each made by the process that has written the file.

With OCDBT, Orbax gives every process files of its own: `<item>/ocdbt.process_<n>/` and
`<item>/array_metadatas/process_<n>`. They never change again: when process 0 finalises the
checkpoint, it writes a new root beside them. So each process hashes its files when it has written
them, while the others do the same. Process 0 reads only what it wrote when it finalised.

The sums travel as files in the checkpoint's temporary folder, and are gone before it is renamed.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.path import atomicity

from llm_jax.train.manifest import Sums, file_sum, files_below, write_manifest

ITEM = "sums"
"""Orbax waits for a checkpoint's items in alphabetical order: this one comes after the arrays."""
FOLDER = "ocdbt.process_"
NOTE = "_CHECKPOINT_METADATA"
"""Orbax's note about a checkpoint, with the times at which its save began and ended."""
READERS = 32
"""Threads that read or delete small files, on storage where each takes tens of milliseconds."""


class _Hashing:
    """Orbax's future of this process's sums. The arrays are written when it is waited for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def result(self, timeout: float | None = None) -> None:
        sums = own_sums(self._folder.parent, jax.process_index())
        (self._folder / f"{jax.process_index()}.json").write_text(json.dumps(sums))

    def cancel(self) -> None:
        """Orbax asks for it, and goes on without what it has cancelled."""


class SumsHandler(ocp.AsyncCheckpointHandler):
    """Writes the sums of this process's files as an item of the checkpoint."""

    async def async_save(self, directory: Any, args: SumsSave) -> list[Any]:
        return [_Hashing(Path(directory))]

    def save(self, directory: Any, args: SumsSave) -> None:
        _Hashing(Path(directory)).result()

    def restore(self, directory: Any, args: Any = None) -> None:
        raise NotImplementedError("the sums are part of the manifest")


@ocp.args.register_with_handler(SumsHandler, for_save=True, for_restore=True)
class SumsSave(ocp.args.CheckpointArgs):
    """The item `ITEM` of a checkpoint."""


def own_sums(folder: Path, process: int) -> Sums:
    """Sizes and checksums of the files below `folder` that `process` alone writes."""
    return {
        f"{item.name.partition('.')[0]}/{path.relative_to(item).as_posix()}": file_sum(path)
        for item in folder.iterdir()  # `params.orbax-checkpoint-tmp` and others
        for path in _own(item, process)
    }


def _own(item: Path, process: int) -> Iterator[Path]:
    yield from files_below(item / f"{FOLDER}{process}")
    described = item / "array_metadatas" / f"process_{process}"
    if described.is_file():
        yield described


def take_sums(folder: Path) -> Sums:
    """All processes' sums, whose files below `folder` are deleted."""

    def take(file: Path) -> Sums:
        held = json.loads(file.read_text())
        file.unlink()
        return {name: (size, digest) for name, (size, digest) in held.items()}

    with ThreadPoolExecutor(READERS) as readers:
        parts = list(readers.map(take, (folder / ITEM).glob("*.json")))
    shutil.rmtree(folder / ITEM)
    return {name: one for part in parts for name, one in part.items()}


class Committed(atomicity.AtomicRenameTemporaryPath):
    """A checkpoint's temporary folder. Its manifest is written after Orbax's note, the last file
    that changes, and before the folder gets its name. Process 0 does both."""

    _checkpoint_metadata_store: Any

    async def finalize(self) -> None:
        store, self._checkpoint_metadata_store = self._checkpoint_metadata_store, None
        if store is not None:  # an item's folder, which Orbax finalises likewise, has none
            await asyncio.to_thread(self._describe, store)
        await super().finalize()

    def _describe(self, store: Any) -> None:
        folder = Path(self.get())
        store.wait_until_finished()
        handlers = {
            k: v for k, v in store.read(folder / NOTE)["item_handlers"].items() if k != ITEM
        }
        now = time.time_ns()
        store.update(folder / NOTE, item_handlers=handlers, commit_timestamp_nsecs=now)
        store.wait_until_finished()
        sums = take_sums(folder)
        whole = {"/".join(name.split("/")[:2]) for name in sums if f"/{FOLDER}" in name}
        write_manifest(folder, sums, whole)
