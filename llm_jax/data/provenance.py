"""What a dataset says of its sources: licence, class, files with hashes, and what each one gave.

dataset.json names at most `LISTED` files of a source, and how many more there are; `files.jsonl`
names every one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llm_jax.data.corpus import Corpus
from llm_jax.data.sources import Source

FILES_FILE = "files.jsonl"
LISTED = 1000
"""Files of one source that dataset.json names, which is read whole wherever a dataset is opened."""


def source_records(
    sources: Sequence[Source], corpus: Corpus, part_tokens: Sequence[int], folder: Path
) -> list[dict[str, Any]]:
    """One record for each licence and class of each source; writes `files.jsonl` into `folder`.

    A record has what `Source.describe` says, and the `documents`, `bytes` (UTF-8, of cleaned text)
    and `tokens` in the dataset. A source that gave none has one record with zeros.
    """
    described = described_sources(sources, folder)
    none = {"documents": 0, "bytes": 0, "tokens": 0}
    records: list[list[dict[str, Any]]] = [[] for _ in sources]
    for (number, licence, class_), part in corpus.parts.items():
        counts = {
            "documents": part.documents,
            "bytes": part.bytes,
            "tokens": part_tokens[part.number],
        }
        records[number].append(described[number] | {"licence": licence, "class": class_} | counts)
    return [
        record for number, one in enumerate(described) for record in records[number] or [one | none]
    ]


def described_sources(sources: Sequence[Source], folder: Path) -> list[dict[str, Any]]:
    """What each source says of itself, with at most `LISTED` files; writes `files.jsonl`."""
    described = [source.describe() for source in sources]
    _write_files(described, folder / FILES_FILE)
    for one in described:
        one["files_not_named"] = max(0, len(one["files"]) - LISTED)
        one["files"] = one["files"][:LISTED]
    return described


def _write_files(described: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes one JSON object per file of a source: source, path, sha256, bytes."""
    with path.open("w", encoding="utf-8") as out:
        for one in described:
            for file in one["files"]:
                out.write(json.dumps({"source": one["name"]} | file, ensure_ascii=False) + "\n")
