"""Curated documents as Parquet: a row per document, what is nested as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from llm_jax.config.extras import require_packages
from llm_jax.data.curate.draft import Draft

ROWS = 256
"""Of a row group, so that reading holds few documents at a time."""
NESTED = ("metadata", "edits", "notes")
NUMBERS = ("line", "number")
COLUMNS = ("text", "source", "file", "line", "licence", "class", "number", "language", *NESTED)


def write(drafts: Iterable[Draft], path: Path) -> None:
    """Writes `drafts` in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.int64() if name in NUMBERS else pa.string() for name in COLUMNS}
    schema = pa.schema([(name, types[name]) for name in COLUMNS])
    left = iter(drafts)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while rows := [_row(draft) for draft in islice(left, ROWS)]:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def read(path: Path) -> Iterator[Draft]:
    """The documents that `write` wrote, in order."""
    require_packages("Reading Parquet", "pyarrow")
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(ROWS):
            for row in batch.to_pylist():
                yield Draft.of(row | {name: json.loads(row[name] or "{}") for name in NESTED})


def _row(draft: Draft) -> dict[str, object]:
    record = draft.record()
    nested = {
        name: json.dumps(record[name], ensure_ascii=False) for name in NESTED if name in record
    }
    return {name: record.get(name) for name in COLUMNS} | dict.fromkeys(NESTED) | nested
