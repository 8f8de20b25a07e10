"""Rows of Parquet and Arrow files, by pyarrow: only the columns that are needed, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from llm_jax.data.sources.encodings import Encoding
from llm_jax.data.sources.left_out import UNREADABLE, Unusable
from llm_jax.data.sources.rows import NoColumn, Row
from llm_jax.data.sources.unpack import FREE_BYTES, MOST_TIMES

BATCH_BYTES = 2**28
"""Most bytes of a Parquet batch. A value that is stored once, in the dictionary of a column chunk,
may be in every row, so a batch has this many bytes over the size of the largest chunk as rows."""
MOST_ROWS = 64
READ_BYTES = 2**20
"""Bytes of a column that are read at a time, so that a row group need not fit in memory."""


def check(stream: BinaryIO, kind: str, paths: Sequence[str]) -> None:
    """Raises `NoColumn` for the first of `paths` that the file's schema lacks."""
    with _named():
        file = _parquet(stream) if kind == "parquet" else _arrow(stream)
        _check_schema(_schema(file), paths)


def rows(stream: BinaryIO, kind: str, paths: Sequence[str], encoding: Encoding) -> Iterator[Row]:
    """Rows with the columns that `paths` begin with, numbered from 1.

    Args:
      stream: a file that can seek.
      encoding: of columns of bytes.
      kind: "parquet" or "arrow" (both of its forms; the `datasets` library writes the streaming).

    Raises:
      Unusable: the file is damaged, or lacks a column (`NoColumn`).
    """
    batches = _parquet_batches if kind == "parquet" else _arrow_batches
    number = made = 0
    with _named():
        for batch in _slices(batches(stream, paths)):
            names = batch.schema.names
            columns = [_values(column, encoding) for column in batch.columns]
            texts = (len(one) for column in columns for one in column if isinstance(one, str))
            made += max(batch.nbytes, sum(texts))
            _refuse_bomb(made, stream)
            for values in zip(*columns, strict=True):
                number += 1
                bad = next((value for value in values if isinstance(value, Unusable)), None)
                yield Row(number, bad or dict(zip(names, values, strict=True)))


def _slices(batches: Iterator[Any]) -> Iterator[Any]:
    """The same rows, at most `MOST_ROWS` at a time: a writer of Arrow makes batches of any size."""
    for batch in batches:
        for start in range(0, batch.num_rows, MOST_ROWS):
            yield batch.slice(start, MOST_ROWS)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Turns pyarrow's errors about a file into `Unusable`."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unusable(UNREADABLE, f"damaged, or not what its name says ({why[:200]})") from None


def _parquet(stream: BinaryIO) -> Any:
    import pyarrow.parquet

    stream.seek(0)
    return pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=READ_BYTES)


def _arrow(stream: BinaryIO, included: list[int] | None = None) -> Any:
    import pyarrow.ipc

    stream.seek(0)
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    options = pyarrow.ipc.IpcReadOptions(included_fields=included or [])
    opened = pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream
    return opened(pyarrow.PythonFile(stream, mode="r"), options=options)


def _schema(file: Any) -> Any:
    return getattr(file, "schema_arrow", None) or file.schema


def _parquet_batches(stream: BinaryIO, paths: Sequence[str]) -> Iterator[Any]:
    file = _parquet(stream)
    schema = _schema(file)
    _check_schema(schema, paths)
    groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
    _refuse_bomb(sum(group.total_byte_size for group in groups), stream)
    columns = [_column(schema, path) for path in paths]
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        chunks = (about.column(i).total_uncompressed_size for i in range(about.num_columns))
        size = min(MOST_ROWS, max(1, BATCH_BYTES // max(1, *chunks)))
        yield from file.iter_batches(size, [group], columns, use_threads=False)


def _arrow_batches(stream: BinaryIO, paths: Sequence[str]) -> Iterator[Any]:
    schema = _arrow(stream).schema
    _check_schema(schema, paths)
    roots = [path if path in schema.names else path.partition(".")[0] for path in paths]
    file = _arrow(stream, sorted({schema.get_all_field_indices(root)[0] for root in roots}))
    count = getattr(file, "num_record_batches", None)
    batches = file if count is None else map(file.get_batch, range(count))
    for batch in batches:
        batch.validate(full=True)  # offsets outside of the data would crash the process
        yield batch


def _refuse_bomb(size: int, stream: BinaryIO) -> None:
    """Raises `Unusable` if a file that expands to `size` bytes expands as no text does."""
    if size > FREE_BYTES:
        here = stream.tell()
        if size > MOST_TIMES * stream.seek(0, 2):
            raise Unusable(UNREADABLE, f"expands to over {MOST_TIMES:,} times its size")
        stream.seek(here)


def _check_schema(schema: Any, paths: Sequence[str]) -> None:
    for path in paths:
        if not _has(schema, path):
            raise NoColumn(path, schema.names)


def _has(schema: Any, path: str) -> bool:
    """Whether a record of `schema` can have a value at `path`."""
    import pyarrow.types as types

    if path in schema.names:
        return True
    root, *rest = path.split(".")
    if root not in schema.names:
        return False
    kind = schema.field(schema.get_all_field_indices(root)[0]).type
    for part in rest:
        if types.is_struct(kind) and kind.get_field_index(part) >= 0:
            kind = kind.field(part).type
        elif types.is_list(kind) or types.is_large_list(kind):
            kind = kind.value_type
        else:
            return types.is_map(kind)
    return True


def _column(schema: Any, path: str) -> str:
    """What Parquet is asked for: `path`, or all of its first field if a list is on the way."""
    import pyarrow.types as types

    if path in schema.names:
        return path
    root, *rest = path.split(".")
    kind = schema.field(schema.get_all_field_indices(root)[0]).type
    for part in rest:
        if not types.is_struct(kind):
            return root
        kind = kind.field(part).type
    return path


def _values(column: Any, encoding: Encoding) -> list[Any]:
    """The column as Python values; an `Unusable` in place of a text that is not valid, None in
    place of a time that Python cannot hold, or whose zone is unknown."""
    import pyarrow
    import pyarrow.types as types

    if types.is_binary(column.type) or types.is_large_binary(column.type):
        return [_decoded(raw, encoding) for raw in column.to_pylist()]
    if types.is_timestamp(column.type) and column.type.unit == "ns":  # Python has microseconds
        column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, KeyError):
        return [_value(one) for one in column]


def _decoded(raw: bytes | None, encoding: Encoding) -> Any:
    try:
        return None if raw is None else encoding.decode(raw)
    except Unusable as error:
        return error


def _value(one: Any) -> Any:
    try:
        return one.as_py()
    except UnicodeDecodeError as error:
        return Unusable("not utf-8", f"bytes {error.object[error.start : error.end].hex(' ')}")
    except (ValueError, OverflowError, KeyError):
        return None
