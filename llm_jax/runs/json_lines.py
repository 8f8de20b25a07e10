"""Files of one JSON object a line, to which a running program appends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import UserError, parse_json, read_text

MOST_BYTES = 1 << 30
"""A record has some 400 bytes."""


def read_records(path: Path, *, whole: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """(place, record) of each line, where the place is the file and the line for a sentence.

    Args:
      whole: the last line counts too. Else a damaged one is left out: a kill can cut it off.

    Raises:
      UserError: the file cannot be read, or a line is not a JSON object.
    """
    found = []
    lines = read_text(path, MOST_BYTES).splitlines()
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        try:
            record = parse_json(line, where)
            if not isinstance(record, dict):
                raise UserError(f"{where} is not an object with named fields: repair the file.")
        except UserError:
            if number == len(lines) and not whole:
                break
            raise
        found.append((where, record))
    return found
