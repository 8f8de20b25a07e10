"""Rows of CSV and TSV files, of which the first names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from llm_jax.data.sources.encodings import Encoding
from llm_jax.data.sources.json_records import too_long
from llm_jax.data.sources.left_out import Unusable
from llm_jax.data.sources.pieces import PiecesFile
from llm_jax.data.sources.rows import NoColumn, Row

MOST_CHARACTERS = 2**31 - 2
"""More than this the csv module does not take on every machine."""
DELIMITERS = {"csv": ",", "tsv": "\t"}


def rows(
    pieces: Iterator[bytes], kind: str, encoding: Encoding, paths: Sequence[str], most: int
) -> Iterator[Row]:
    """Records by the names of the first row. `line` is the row, from 1 for the first record.

    Args:
      kind: "csv" or "tsv".
      most: largest size of a line, and of a field over several lines, in characters.

    Raises:
      Unusable: the first row lacks one of `paths` (`NoColumn`), or what follows cannot be read;
        the rows before that have been yielded.
    """
    table = _rows(pieces, kind, encoding, min(most, MOST_CHARACTERS))
    names = next(table, [])
    for path in paths:
        if path not in names:
            raise NoColumn(path, names)
    for number, values in enumerate(table, 1):
        if len(values) == len(names):
            yield Row(number, dict(zip(names, values, strict=True)))
        elif values:
            detail = f"{len(values)} fields, and {len(names)} columns"
            yield Row(number, Unusable("row of another length", detail))


def _rows(pieces: Iterator[bytes], kind: str, encoding: Encoding, most: int) -> Iterator[list[str]]:
    text = io.TextIOWrapper(PiecesFile(pieces), encoding.codec, newline="")  # type: ignore[type-var]
    csv.field_size_limit(most)
    table = csv.reader(_lines(text, most), delimiter=DELIMITERS[kind])
    number = 0
    try:
        for values in table:
            yield values
            number += 1
    except csv.Error as error:
        detail = f"{error} behind row {number:,} of the file; those before are used"
        raise Unusable("not CSV", detail) from None
    except UnicodeError as error:
        detail = f"{error} behind row {number:,} of the file; those before are used"
        raise Unusable(f"not {encoding.named}", detail) from None


def _lines(text: io.TextIOWrapper[Any], most: int) -> Iterator[str]:
    while line := text.readline(most + 1):
        if len(line) > most:
            raise too_long(most)
        yield line
