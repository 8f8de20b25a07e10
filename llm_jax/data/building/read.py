"""The task that reads a shard of the sources: cleaned texts, and their digests."""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from llm_jax.config import UserError
from llm_jax.data.building.events import Events, Replay
from llm_jax.data.building.given import given_documents
from llm_jax.data.building.work import Work
from llm_jax.data.clean import Cleaner
from llm_jax.data.corpus import INDEX
from llm_jax.data.curate.curated import CuratedSource
from llm_jax.data.same_text import reader_key
from llm_jax.data.sources import Document, FileSource
from llm_jax.data.sources.columns import Columns
from llm_jax.data.sources.left_out import HALF_CHARACTERS, printable
from llm_jax.data.sources.local import LocalFile
from llm_jax.data.tasks.program import save_array
from llm_jax.runs.files import replacing


def read_shard(work: Work, shard: int) -> None:
    """Reads a shard and cleans its documents, unless that is done."""
    if work.is_done("read", shard):
        return
    task, events, columns = work.task("read", shard), Events(), Columns()
    given = work.path("read", shard, "given")
    index, cleaned = _Index(), Cleaned(work.cleaner, events)
    with (
        _written(work.path("read", shard, "texts")) as texts,
        _written(work.path("read", shard, "places.jsonl")) as places,
    ):
        for document, text, raw in cleaned.texts(task_documents(task, given, events, columns)):
            texts.write(raw)
            places.write(json.dumps([document.source, document.line]).encode() + b"\n")
            index.add(reader_key(text), len(raw), document)
            events.place = len(index)
    save_array(work.path("read", shard, "index.npy"), index.array())
    work.finish(
        "read",
        shard,
        used=cleaned.used,
        parts=list(index.parts),
        events=events.to_dict(),
        columns=columns.to_dict(),
    )
    given.unlink(missing_ok=True)


class Cleaned:
    """Cleans documents.

    Attributes:
      used: those that are not losses, so far.
    """

    def __init__(self, cleaner: Cleaner, events: Events) -> None:
        self.used = 0
        self._cleaner, self._events = cleaner, events

    def texts(self, documents: Iterable[Document]) -> Iterator[tuple[Document, str, bytes]]:
        """Each document that is kept, with its cleaned text, also as UTF-8."""
        for document in documents:
            text = self._cleaner.clean(document.text)
            try:
                raw = text.encode()
            except UnicodeEncodeError:
                self._events.lose(HALF_CHARACTERS, document.source, document.line)
                continue
            self.used += 1
            if reason := self._cleaner.reason_to_drop(text):
                self._events.skip(reason, document.source, document.line)
                continue
            yield document, text, raw


class _Index:
    """What is known of the texts, in 28 bytes each.

    Attributes:
      parts: (licence, class) of texts → their number.
    """

    def __init__(self) -> None:
        self.parts: dict[tuple[str, str], int] = {}
        self._digests = bytearray()
        self._sizes, self._part_numbers = array("Q"), array("I")

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, digest: bytes, size: int, document: Document) -> None:
        self._digests += digest
        self._sizes.append(size)
        part = (document.licence, document.class_)
        self._part_numbers.append(self.parts.setdefault(part, len(self.parts)))

    def array(self) -> np.ndarray:
        """(documents,) of `INDEX`."""
        made = np.zeros(len(self), INDEX)
        made["digest"] = np.frombuffer(self._digests, "<u8").reshape(-1, 2)
        made["size"], made["part"] = self._sizes, self._part_numbers
        return made


@contextlib.contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield file


def task_documents(
    task: dict[str, Any], given: Path, events: Events, columns: Columns
) -> Iterator[Document]:
    """The documents that a task of `shards_of` is to read.

    Args:
      given: file of the texts that were read for it, if any were.
      events, columns: record what is left out, and count the files.
    """
    if task["kind"] == "given":
        return given_documents(given, events)
    if task["kind"] == "curated":
        return CuratedSource.of_settings(task).documents(events)
    return _of_files(task, events, columns)


def _of_files(task: dict[str, Any], events: Events, columns: Columns) -> Iterator[Document]:
    source = FileSource.of_settings(task["settings"])
    files = [LocalFile(Path(path), key) for path, key in task["files"]]
    source.expect([file.name for file in files], task["stamps"])
    walk = Replay(task["events"], events)  # what was passed over on the way to each file
    for number, file in enumerate(files):
        walk.up_to(number)
        if task["stamps"] and task["stamps"][number] is not None and not file.path.exists():
            raise UserError(
                f"{printable(file.name)} is not there any more, or not on this machine: run tasks "
                "where all files are."
            )
        yield from source.documents_of(file, events, columns)
    walk.rest()
