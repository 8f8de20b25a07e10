"""Cuts sources into shards for tasks to read: files where these can be read alone, else texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llm_jax.data.building.events import Events
from llm_jax.data.building.given import Given
from llm_jax.data.curate.curated import CuratedSource
from llm_jax.data.sources import Document, FileSource, LeftOut, Source
from llm_jax.data.sources.columns import Columns
from llm_jax.data.sources.local import LocalFile
from llm_jax.data.sources.unpack import COMPRESSED_SUFFIXES
from llm_jax.data.sources.walk import (
    HTML_SUFFIXES,
    TAR_SUFFIXES,
    WARC_SUFFIXES,
    last_suffix,
    text_suffix,
)

SHARD_BYTES = 64_000_000
"""A shard ends with the file or the document that reaches this size: under a second of reading,
against 0.2 s for the start of a process."""
SHARD_DOCUMENTS = 200_000
"""Most files or documents of a shard, which memory holds a list of."""
LARGE_SHARDS, TASKS = 2, 16
"""A file is read in one task if it makes no more shards, or has no more than one part of so many of
its source. What a shard holds must not depend on the number of processes: a build that was killed
may resume with another."""
SLOW = {*HTML_SUFFIXES, *WARC_SUFFIXES, *TAR_SUFFIXES}
"""Suffixes of files whose texts have to be found in them, which a task does, however large."""
WEIGHTS = dict.fromkeys((*COMPRESSED_SUFFIXES, ".parquet"), 4) | dict.fromkeys(SLOW, 16)
"""Suffix → work of a byte of such a file, relative to a byte of plain text, roughly."""
Shard = tuple[dict[str, Any], Given | None]
"""What a task is to read, and the texts that were read here for it."""


def shards_of(number: int, source: Source, columns: Columns) -> Iterator[Shard]:
    """The shards of a source, in order. Use each one before the next is asked for.

    Args:
      number: index of the source.
      columns: counts the files that are read here.
    """
    if isinstance(source, CuratedSource):
        yield from _curated(number, source)
    elif isinstance(source, FileSource) and not isinstance(source.path, str):
        yield from _files(number, source, columns)
    else:
        given = Given()
        yield from _texts(number, given, source.documents(given.events))


def _curated(number: int, source: CuratedSource) -> Iterator[Shard]:
    files: list[str] = []
    size = 0
    for file in source.files:
        files.append(file)
        size += _size(source.folder / file)
        if size >= SHARD_BYTES:
            yield source.settings(files) | {"kind": "curated", "source": number}, None
            files, size = [], 0
    if files:
        yield source.settings(files) | {"kind": "curated", "source": number}, None


def _files(number: int, source: FileSource, columns: Columns) -> Iterator[Shard]:
    walk, most = Events(), _most(source)
    files: list[LocalFile] = []
    size = 0
    for file in source.files(walk):
        assert isinstance(file, LocalFile)
        own = _size(file.path)
        if own > most and not SLOW & _suffixes(file.path):
            if files or walk:
                yield _task(number, source, files, walk), None
                files, size = [], 0
            given = Given()
            yield from _texts(number, given, source.documents_of(file, given.events, columns))
            continue
        files.append(file)
        walk.place = len(files)
        size += own
        if size >= SHARD_BYTES or len(files) == SHARD_DOCUMENTS:
            yield _task(number, source, files, walk), None
            files, size = [], 0
    if files or walk:
        yield _task(number, source, files, walk), None


def _task(
    number: int, source: FileSource, files: Sequence[LocalFile], walk: Events
) -> dict[str, Any]:
    """What a task is to read; `walk` is cleared."""
    task = {
        "kind": "files",
        "source": number,
        "settings": source.settings(),
        "files": [[file.name, file.key] for file in files],
        "stamps": source.stamps(file.name for file in files),
        "events": walk.to_dict(),
    }
    walk.clear()
    return task


def _texts(number: int, given: Given, documents: Iterable[Document]) -> Iterator[Shard]:
    """Shards of `documents`, whose source records in `given.events` what it leaves out."""
    for document in documents:
        given.add(document)
        if given.size >= SHARD_BYTES or len(given) == SHARD_DOCUMENTS:
            yield {"kind": "given", "source": number, "sha256": given.sha256()}, given
            given.clear()
    if given or given.events:
        yield {"kind": "given", "source": number, "sha256": given.sha256()}, given


def _most(source: FileSource) -> float:
    """Size of the largest file that a task reads alone. The texts of a larger one are read here,
    and cleaned in several tasks: the others would wait for its one task. Finding a page's main text
    takes longer than that."""
    if source.markup != "none":
        return math.inf
    files = source.files(LeftOut())
    total = sum(_size(file.path) for file in files if isinstance(file, LocalFile))
    return max(LARGE_SHARDS * SHARD_BYTES, total // TASKS)


def _size(path: Path) -> int:
    """Bytes of plain text that are as much work as a file, roughly; 0 for one that cannot be read,
    which its reader records."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return 0
    return size * math.prod(WEIGHTS.get(suffix, 1) for suffix in _suffixes(path))


def _suffixes(path: Path) -> set[str]:
    """That of the compression, and the one before it."""
    return {last_suffix(path.name), text_suffix(path.name)}
