"""Shards of documents: JSON lines, compressed by zstd, written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from llm_jax.data.curate import parquet
from llm_jax.data.curate.draft import Draft
from llm_jax.runs.files import replacing

SHARD_BYTES = 8_000_000
"""A shard ends with the document that reaches this size. It does not depend on the number of
processes, so neither does the result."""
SHARD_DOCUMENTS = 20_000
"""Most documents of a shard: one takes a kilobyte of memory beside its text."""
LEVEL = 3


def part_suffix(part: int) -> str:
    """Suffix of a shard that is one of several parts."""
    return f"{part:05d}.jsonl.zst"


@contextlib.contextmanager
def written(path: Path) -> Iterator[Callable[[Draft], None]]:
    """A function that adds a document to the new shard `path`."""
    with replacing(path) as temporary, temporary.open("wb") as raw:
        packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        with packer.stream_writer(raw, closefd=False) as packed:

            def add(draft: Draft) -> None:
                line = json.dumps(draft.record(), ensure_ascii=False, separators=(",", ":"))
                packed.write(line.encode() + b"\n")

            yield add


def read(path: Path) -> Iterator[Draft]:
    """The documents of a shard or of a file of a curated folder, in order."""
    if path.suffix == ".parquet":
        yield from parquet.read(path)
        return
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as unpacked:
        for line in io.TextIOWrapper(unpacked, encoding="utf-8", newline="\n"):
            yield Draft.of(json.loads(line))
