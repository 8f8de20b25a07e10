"""One-dimensional root and minimum. They replace SciPy's, whose import takes half of the second
that a plan takes."""

from __future__ import annotations

import math
from collections.abc import Callable

GOLDEN = (math.sqrt(5) - 1) / 2


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """The point between `low` and `high` where `f` changes sign, by bisection to float64 precision.

    Raises:
      ValueError: `f` has the same sign at both ends.
    """
    below = f(low)
    if below == 0:
        return low
    if below * f(high) > 0:
        raise ValueError(f"no change of sign between {low} and {high}")
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if f(middle) * below > 0:
            low = middle
        else:
            high = middle


def minimum(f: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of `f` between `low` and `high`, by golden section to 1e-9. `f` must first fall,
    then rise."""
    a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_a, at_b = f(a), f(b)
    while high - low > 1e-9 * max(1.0, abs(low)):
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - GOLDEN * (high - low)
            at_a = f(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + GOLDEN * (high - low)
            at_b = f(b)
    return (low + high) / 2
