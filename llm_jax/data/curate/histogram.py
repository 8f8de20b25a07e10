"""The bins of a check's values: the same for every task, and with an edge at each bound."""

from __future__ import annotations

import functools
import math
from bisect import bisect_left, bisect_right

BINS = 20
"""Between zero and a single bound."""


@functools.lru_cache(maxsize=4096)
def edges(low: float | None, high: float | None) -> tuple[float, ...]:
    """Ascending edges. The first bin is below the first edge, the last above the last.

    One bound: up to three times the bound. Two bounds far apart: logarithmic.
    """
    if low is None or high is None:
        bound = high if low is None else low
        if not bound:
            return tuple(i + 0.5 for i in range(BINS))
        return tuple(bound * i / BINS for i in range(1, 3 * BINS + 1))
    around = range(-BINS // 2, 3 * BINS // 2 + 1)
    if low > 0 and high / low > BINS:
        step = math.log(high / low) / BINS
        return tuple(high if i == BINS else low * math.exp(i * step) for i in around)
    step = (high - low) / BINS
    return tuple(high if i == BINS else low + i * step for i in around)


def bin_of(value: float, low: float | None, high: float | None) -> int:
    """Number of the bin of `value`; a value at a bound is in the bin on the side that is kept."""
    find = bisect_left if low is None else bisect_right
    return find(edges(low, high), value)
