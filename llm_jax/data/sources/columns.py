"""Whether a source is made of tables none of which has a column that was asked for."""

from __future__ import annotations

from typing import Any

from llm_jax.config import UserError
from llm_jax.data.sources.rows import NoColumn


class Columns:
    """What became of the files of one source."""

    def __init__(self) -> None:
        self._first: list[str] | None = None
        self._others = 0

    def see(self, error: Exception | None) -> None:
        """Counts a file, which ended in this `error`."""
        if not isinstance(error, NoColumn):
            self._others += 1
        else:
            self._first = self._first or [error.reason, error.detail]

    def to_dict(self) -> dict[str, Any]:
        return {"first": self._first, "others": self._others}

    def merge(self, other: dict[str, Any]) -> None:
        """Adds what `to_dict` of later files returned."""
        self._first = self._first or other["first"]
        self._others += other["others"]

    def check(self, source: str) -> None:
        """Raises `UserError` if no file has the column: a wrong name is not the fault of the files.

        Args:
          source: as the user gave it.
        """
        if self._first is not None and not self._others:
            reason, detail = self._first
            raise UserError(
                f"--input '{source}' has {reason}: {detail}; name another with --text-key or "
                "--metadata."
            )
