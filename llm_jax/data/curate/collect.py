"""The files of a curated folder, from the shards of the last pass."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

from llm_jax.data.curate import parquet, shards
from llm_jax.data.curate.curated import DOCUMENTS
from llm_jax.data.curate.plan import Plan

Format = Literal["jsonl", "parquet"]
SUFFIXES: dict[Format, str] = {"jsonl": "jsonl.zst", "parquet": "parquet"}


def collect(plan: Plan, count: int, folder: Path, format_: Format) -> list[dict[str, Any]]:
    """Puts the documents of the last pass into `folder`; returns what each file holds."""
    folder.mkdir()
    last = len(plan.passes) - 1
    made: list[dict[str, Any]] = []
    for shard in range(count):
        path = plan.shard(last, shard)
        left = _left(plan.shard(last, shard, "tally.json"))
        sources: dict[str, int] = {}
        for source, documents, _ in left:
            sources[source] = sources.get(source, 0) + documents
        if not sources:
            continue
        name = f"{len(made):05d}.{SUFFIXES[format_]}"
        if format_ == "parquet":
            parquet.write(shards.read(path), folder / name)
        else:
            _same_file(path, folder / name)
        made.append(
            {
                "file": f"{DOCUMENTS}/{name}",
                "documents": sum(sources.values()),
                "bytes": sum(size for _, _, size in left),
                "sources": sources,
                "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            }
        )
    return made


def _left(tally: Path) -> list[tuple[str, int, int]]:
    """Source, documents and bytes of what a shard holds, as its last pass counted them."""
    held = json.loads(tally.read_text(encoding="utf-8"))["left"]
    return [
        (key.rsplit("\t", 1)[0], int(amount[0]), int(amount[1])) for key, amount in held.items()
    ]


def _same_file(path: Path, other: Path) -> None:
    """A hard link, or a copy where the disk has none."""
    try:
        other.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, other)
