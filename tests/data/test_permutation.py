"""The computed permutation is one, differs between keys, and looks random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.data.permutation import permute, seed_key


def whole(n: int, key: int) -> np.ndarray:
    return permute(np.arange(n, dtype=np.int64), n, np.full(n, seed_key(key)[0]))


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 3000), key=st.integers(-(2**70), 2**70))
def test_every_index_comes_exactly_once(n: int, key: int) -> None:
    assert np.array_equal(np.sort(whole(n, key)), np.arange(n))


def test_keys_give_different_orders() -> None:
    a, b = whole(10_000, 1), whole(10_000, 2)
    assert np.count_nonzero(a == b) < 10  # one fixed point is expected of two random orders


def test_order_has_no_trace_of_the_index() -> None:
    n = 20_000
    image = whole(n, 7)
    assert abs(np.corrcoef(np.arange(n), image)[0, 1]) < 0.03  # 4 standard errors
    steps = np.bincount((np.diff(image) % n) * 16 // n, minlength=16)
    expected = (n - 1) / 16
    assert ((steps - expected) ** 2 / expected).sum() < 40  # chi-square, 15 degrees: p = 5e-4


@pytest.mark.parametrize("n", [10**12, 2**40 + 1])
def test_huge_domains_cost_nothing_and_stay_inside(n: int) -> None:
    index = np.arange(n - 1000, n, dtype=np.int64)
    image = permute(index, n, np.full(1000, seed_key(3)[0]))
    assert image.min() >= 0
    assert image.max() < n
    assert len(np.unique(image)) == 1000


def test_values_stay_the_same_for_ever() -> None:
    """Resuming a run needs the order that the run began with: a change here breaks old runs."""
    assert whole(10, 0).tolist() == [9, 7, 6, 4, 3, 0, 2, 8, 1, 5]
