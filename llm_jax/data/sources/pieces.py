"""Bytes that come in pieces, as a file that other libraries read from its beginning to its end."""

from __future__ import annotations

import io
from collections.abc import Iterator

from llm_jax.data.sources.left_out import Unusable

TAIL_BYTES = 512


class PiecesFile(io.BufferedIOBase):
    """A file that cannot seek, made of `pieces`, none of which is empty.

    What comes before a piece that is `Unusable` can be read: `read` returns it, and only the next
    call raises.

    Attributes:
      tail: the last bytes that were read, at most `TAIL_BYTES`; they show whether a format that
        has a mark at its end is complete.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.tail = b""
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._error: Unusable | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        left = -1 if size is None else size
        parts: list[bytes] = []
        while left:
            try:
                part = self.read1(left)
            except Unusable as error:
                if not parts:
                    raise
                self._error = error
                break
            if not part:
                break
            parts.append(part)
            left -= len(part) if left > 0 else 0
        return b"".join(parts)

    def read1(self, size: int = -1) -> bytes:
        if self._error is not None:
            raise self._error
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        part = bytes(self._piece if size < 0 else self._piece[:size])
        self._piece = self._piece[len(part) :]
        self.tail = (self.tail + part[-TAIL_BYTES:])[-TAIL_BYTES:]
        return part
