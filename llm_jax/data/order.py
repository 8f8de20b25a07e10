"""The order in which a run reads the windows of its text, across changes of their length.

An epoch reads every window of T tokens once, in a pseudo-random order that is a function of (seed,
epoch). If T or the seed changes in mid-epoch, the rest of the epoch reads the text that it has not
read yet: the unread pieces are laid end to end, cut into windows of the new length, and read in the
new order. So each token of the epoch is an input once. Later epochs read whole windows again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llm_jax.data.permutation import mix, permute, seed_key

CHUNK = 2**22
"""Rows whose windows are computed at a time."""


@dataclass(frozen=True, eq=False)
class Order:
    """An endless sequence of windows; row r is the r-th window to read.

    Attributes:
      tokens: length of the stream. Its windows begin at multiples of `seq_len`; each has
        `seq_len` + 1 tokens.
      epoch: number of the first epoch.
      left: (n, 2) int64, [start, end) of the pieces of the stream that the first epoch reads,
        ascending and not adjacent; None: all windows.
    """

    tokens: int
    seq_len: int
    seed: int
    epoch: int = 0
    left: np.ndarray | None = None

    @property
    def windows(self) -> int:
        """Windows in a whole epoch."""
        return (self.tokens - 1) // self.seq_len

    @property
    def first_rows(self) -> int:
        """Rows in the first epoch; if it reads pieces, the last row may be padded."""
        if self.left is None:
            return self.windows
        return -(-int((self.left[:, 1] - self.left[:, 0]).sum()) // self.seq_len)

    def whole(self, rows: np.ndarray) -> np.ndarray:
        """Where the windows of `rows` (k,) int64 begin in the stream, in epochs without pieces."""
        later = rows - self.first_rows
        first = later < 0
        epoch = self.epoch + np.where(first, 0, 1 + later // self.windows)
        inside = np.where(first, rows, later % self.windows)
        return permute(inside, self.windows, self._key(epoch)) * self.seq_len

    def pieced(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `rows` (k,) int64 read in a first epoch of pieces.

        Returns:
          Three (k, T) arrays: places in the stream; whether a piece, and so a context, begins
          there; whether the row is padded there, after the end of the last piece.
        """
        assert self.left is not None
        n, begins = self.first_rows, _offsets(self.left)
        window = permute(rows, n, self._key(np.full_like(rows, self.epoch)))
        place = window[:, None] * self.seq_len + np.arange(self.seq_len)
        filled = place >= begins[-1]
        piece = np.searchsorted(begins, np.minimum(place, begins[-1] - 1), side="right") - 1
        starts = (place == begins[piece]) | (place == begins[-1])
        stream = self.left[piece, 0] + np.minimum(place, begins[-1] - 1) - begins[piece]
        return stream, starts, filled

    def changed(self, rows: int, seq_len: int, seed: int) -> Order:
        """The order for the rest of a run that has read `rows` rows of this one."""
        later = rows - self.first_rows
        epoch = self.epoch if later < 0 else self.epoch + 1 + later // self.windows
        inside = rows if later < 0 else later % self.windows
        pieces = self.left if later < 0 else None
        if inside == 0 and pieces is None:
            return Order(self.tokens, seq_len, seed, epoch)
        if pieces is None:
            pieces = np.array([[0, self.windows * self.seq_len]])
        unread = self._unread(epoch, inside, pieces)
        return Order(self.tokens, seq_len, seed, epoch, unread)

    def _unread(self, epoch: int, inside: int, pieces: np.ndarray) -> np.ndarray:
        """The parts of the epoch's `pieces` that its rows from `inside` on read."""
        begins = _offsets(pieces)
        n = -(-int(begins[-1]) // self.seq_len)
        unread = np.zeros(n, bool)
        for first in range(inside, n, CHUNK):
            rows = np.arange(first, min(first + CHUNK, n), dtype=np.int64)
            unread[permute(rows, n, self._key(np.full_like(rows, epoch)))] = True
        window = np.flatnonzero(unread)
        edges = np.flatnonzero(np.diff(window) > 1)
        starts = window[np.concatenate([[0], edges + 1])] * self.seq_len
        ends = np.minimum((window[np.concatenate([edges, [-1]])] + 1) * self.seq_len, begins[-1])
        # Runs of windows, cut where a piece ends and mapped to its place in the stream.
        cuts = np.unique(np.concatenate([starts, ends, begins]))
        a, b = cuts[:-1], cuts[1:]
        run = np.searchsorted(starts, a, side="right") - 1
        inner = (run >= 0) & (a < ends[run])
        a, b = a[inner], b[inner]
        piece = np.searchsorted(begins, a, side="right") - 1
        shift = pieces[piece, 0] - begins[piece]
        return np.stack([a + shift, b + shift], axis=1)

    def _key(self, epoch: np.ndarray) -> np.ndarray:
        return mix(seed_key(self.seed) + epoch.astype(np.uint64))


def _offsets(pieces: np.ndarray) -> np.ndarray:
    """(n + 1,): where each piece begins when all are laid end to end, and where the last ends."""
    return np.concatenate([[0], np.cumsum(pieces[:, 1] - pieces[:, 0])])
