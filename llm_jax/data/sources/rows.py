"""What the readers of all formats yield."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from llm_jax.config import nearest
from llm_jax.data.sources.left_out import Unusable


class Row(NamedTuple):
    """A record, or why there is none.

    Attributes:
      line: line, row or record of the file, from 1; None if it is the whole file, or not known.
      record: a dict with the fields of the record, or an `Unusable`.
      member: name of the file inside of an archive.
      is_own: the format has no fields of the user's choice: the text is in `text_key.OWN`.
    """

    line: int | None
    record: Any
    member: str = ""
    is_own: bool = False


class NoColumn(Unusable):
    """A table without a column that was asked for."""

    def __init__(self, path: str, columns: Iterable[str]) -> None:
        known = list(columns)
        there = (
            f"it has {', '.join(known[:8])}{', …' if known[8:] else ''}" if known else "it has none"
        )
        near = f"; {nearest(path, known)}".rstrip(".?") if known[8:] else ""
        super().__init__(f"no column {path!r}", there + near)
