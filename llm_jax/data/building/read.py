"""The task that reads a shard of the sources: cleaned texts, and their digests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.data.building.events import Events, Replay
from llm_jax.data.building.given import given_documents
from llm_jax.data.building.work import Work
from llm_jax.data.corpus import INDEX
from llm_jax.data.curate.curated import CuratedSource
from llm_jax.data.same_text import reader_key
from llm_jax.data.sources import Document, FileSource
from llm_jax.data.sources.columns import Columns
from llm_jax.data.sources.left_out import HALF_CHARACTERS
from llm_jax.data.sources.local import LocalFile
from llm_jax.data.tasks.program import save_array
from llm_jax.runs.files import replacing, write_text


def read_shard(work: Work, shard: int) -> None:
    """Reads a shard and cleans its documents, unless that is done."""
    if work.is_done("read", shard):
        return
    task, events, columns = work.task("read", shard), Events(), Columns()
    given = work.path("read", shard, "given")
    rows: list[tuple[bytes, int, int]] = []
    places: list[tuple[str, int | None]] = []
    parts: dict[tuple[str, str], int] = {}
    used = 0
    with (
        replacing(work.path("read", shard, "texts")) as temporary,
        temporary.open("wb") as texts,
    ):
        for document in task_documents(task, given, events, columns):
            text = work.cleaner.clean(document.text)
            try:
                raw = text.encode()
            except UnicodeEncodeError:
                events.lose(HALF_CHARACTERS, document.source, document.line)
                continue
            used += 1
            if reason := work.cleaner.reason_to_drop(text):
                events.skip(reason, document.source, document.line)
                continue
            texts.write(raw)
            part = parts.setdefault((document.licence, document.class_), len(parts))
            rows.append((reader_key(text), len(raw), part))
            places.append((document.source, document.line))
            events.place = len(rows)
    save_array(work.path("read", shard, "index.npy"), _index(rows))
    write_text(work.path("read", shard, "places.json"), json.dumps(places))
    work.finish(
        "read",
        shard,
        used=used,
        parts=list(parts),
        events=events.to_dict(),
        columns=columns.to_dict(),
    )
    given.unlink(missing_ok=True)


def _index(rows: list[tuple[bytes, int, int]]) -> np.ndarray:
    index = np.zeros(len(rows), INDEX)
    if rows:
        digests, sizes, parts = zip(*rows, strict=True)
        index["digest"] = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
        index["size"], index["part"] = sizes, parts
    return index


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
        yield from source.documents_of(file, events, columns)
    walk.rest()
