"""Which source of a mixture each sequence is from: exact shares, computed for any sequence.

Shares are whole millionths. The order of the sources repeats after at most a million rows, and
consists of blocks of 1,000. A source of share w has ⌊1000·w⌋ rows in each block, always at the same
places. The m rows that are left of a block go to sources by their remainders, to each source at
most once within any m of these rows. So any 1,000 rows in a row, wherever they begin, hold ⌊1000·w⌋
rows of each source or one more.

The left rows of all blocks form a table of P blocks × m, filled column by column with r copies of
each source, where r/P is its remainder (McNaughton 1959, the wrap-around rule): a source that goes
over into the next column leaves P − r blocks between the two parts. Blocks are taken from the table
in strides, which spreads the copies; a stride is too long if it jumps over such a gap.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

BLOCK = 1000
"""Rows in which a source has its share to within one row."""
WHOLE = 1_000_000
"""Shares are whole numbers of this."""


@dataclass(frozen=True)
class Blend:
    """An endless sequence of sources.

    Attributes:
      shares: millionths of the rows that each source has; they add up to `WHOLE`.
    """

    shares: tuple[int, ...]

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each of `rows` (k,) int64, and how many rows before it have that source."""
        source, rank, totals = _table(self.shares)
        period = len(source)
        found = source[rows % period]
        return found, rows // period * totals[found] + rank[rows % period]

    def before(self, row: int) -> tuple[int, ...]:
        """How many of the first `row` rows each source has."""
        source, _, totals = _table(self.shares)
        periods, inside = divmod(row, len(source))
        counts = np.bincount(source[:inside], minlength=len(self.shares))
        return tuple((periods * totals + counts).tolist())


ONE = Blend((WHOLE,))
"""A single source."""


def shares_of(weights: Sequence[float | Fraction]) -> tuple[int, ...]:
    """The nearest millionths in proportion to `weights`, by the method of the largest remainder.

    Equal weights get equal shares but for the last millionth, which goes to the earlier source.
    """
    exact = [Fraction(weight) for weight in weights]
    parts = [weight * WHOLE / sum(exact) for weight in exact]
    floors = [math.floor(part) for part in parts]
    order = sorted(range(len(parts)), key=lambda i: (floors[i] - parts[i], i))
    for i in order[: WHOLE - sum(floors)]:
        floors[i] += 1
    return tuple(floors)


@functools.lru_cache(maxsize=16)
def _table(shares: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One period: the source of each row, the rows of that source before it, and each source's
    number of rows."""
    block = _block(tuple(share // BLOCK for share in shares))
    table = _left_rows(tuple(share % BLOCK for share in shares))
    rows = np.tile(block, (len(table), 1))
    rows[:, block < 0] = table
    source = rows.reshape(-1)
    rank = np.empty(len(source), np.int64)
    for number in range(len(shares)):
        own = source == number
        rank[own] = np.arange(np.count_nonzero(own))
    return source, rank, np.bincount(source, minlength=len(shares))


def _block(counts: tuple[int, ...]) -> np.ndarray:
    """(1000,) int64: `counts` rows of each source, each spread evenly; -1 at the rows that are
    left, spread evenly too."""
    counts = (*counts, BLOCK - sum(counts))
    source = np.repeat(np.arange(len(counts)), counts)
    middle = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts])
    source = source[np.lexsort((source, middle))]
    return np.where(source == len(counts) - 1, -1, source)


def _left_rows(remainders: tuple[int, ...]) -> np.ndarray:
    """(P, m): the sources of the rows that are left of each block."""
    common = math.gcd(BLOCK, *remainders)
    copies, blocks = [r // common for r in remainders], BLOCK // common
    table = np.repeat(np.arange(len(copies)), copies).reshape(-1, blocks).T
    ends = np.cumsum(copies)
    gaps = [
        blocks - n
        for n, end in zip(copies, ends, strict=True)
        if n and (end - n) // blocks != (end - 1) // blocks
    ]
    longest = min([*gaps, max(round(blocks * (3 - math.sqrt(5)) / 2), 1)])
    stride = next(s for s in range(longest, 0, -1) if math.gcd(s, blocks) == 1)
    return table[np.arange(blocks) * stride % blocks]
