"""The order of a mixture's sources: exact shares over any 1,000 rows, and random access."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.data.blend import BLOCK, ONE, WHOLE, Blend, shares_of

WEIGHTS = st.lists(st.integers(1, 10**6), min_size=1, max_size=9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(WEIGHTS)
def test_any_thousand_rows_have_the_shares_to_within_one_row(weights: list[int]) -> None:
    shares = shares_of(weights)
    assert sum(shares) == WHOLE
    source, _ = Blend(shares).split(np.arange(WHOLE + BLOCK))
    for number, share in enumerate(shares):
        counts = np.concatenate([[0], np.cumsum(source == number)])
        assert counts[WHOLE] == share
        inside = counts[BLOCK:] - counts[:-BLOCK]
        assert np.abs(inside - share / BLOCK).max() < 1
        # The rows that a thousand cannot hold are spread over the million.
        drift = counts[: WHOLE + 1] - np.arange(WHOLE + 1) * share / WHOLE
        assert np.abs(drift).max() < 251


@settings(max_examples=30, deadline=None)
@given(WEIGHTS, st.integers(0, 2**40))
def test_a_row_is_computed_as_if_counted(weights: list[int], row: int) -> None:
    """`split` numbers each source's rows from 0 without a gap, also far from the beginning."""
    blend = Blend(shares_of(weights))
    source, number = blend.split(np.arange(row, row + 3000))
    before = np.array(blend.before(row))
    for i in range(len(weights)):
        own = number[source == i]
        np.testing.assert_array_equal(own, before[i] + np.arange(len(own)))
    assert sum(blend.before(row)) == row


def test_the_shares_of_a_quickstart() -> None:
    """50/30/15/5 repeats every 20 rows, so any 20 rows have 10, 6, 3 and 1."""
    shares = shares_of([50, 30, 15, 5])
    assert shares == (500_000, 300_000, 150_000, 50_000)
    source, _ = Blend(shares).split(np.arange(4000))
    any_thousand = np.lib.stride_tricks.sliding_window_view(source, 1000)
    for number, wanted in enumerate((500, 300, 150, 50)):
        assert set((any_thousand == number).sum(axis=1)) == {wanted}
    first = np.bincount(source[:100], minlength=4)  # and spread, not in runs
    assert np.abs(first - [50, 30, 15, 5]).max() <= 2


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([1.0], (WHOLE,)),
        ([1, 1, 1], (333_334, 333_333, 333_333)),
        ([2, 0, 2], (500_000, 0, 500_000)),
        ([Fraction(1, 3), Fraction(2, 3)], (333_333, 666_667)),
    ],
)
def test_shares_are_the_nearest_millionths(weights: list, shares: tuple[int, ...]) -> None:
    assert shares_of(weights) == shares


def test_one_source_has_every_row() -> None:
    rows = np.array([0, 7, 10**12])
    source, number = ONE.split(rows)
    assert source.tolist() == [0, 0, 0] and number.tolist() == rows.tolist()
