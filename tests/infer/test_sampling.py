"""Filters against probabilities that are known."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.config import UserError
from llm_jax.infer.row_sampling import filter_rows, stack_rows
from llm_jax.infer.sampling import Sampling, choose, filtered

FILTER = jax.jit(filter_rows)
PROBS = np.array([0.05, 0.4, 0.1, 0.3, 0.15])


def distribution(**options) -> np.ndarray:
    logits = jnp.log(jnp.asarray(PROBS, jnp.float32))[None]
    return np.asarray(jax.nn.softmax(filtered(logits, Sampling(**options)))[0])


@pytest.mark.slow
def test_temperature_raises_probabilities_to_a_power():
    np.testing.assert_allclose(distribution(), PROBS, rtol=1e-5)
    np.testing.assert_allclose(
        distribution(temperature=0.5), PROBS**2 / np.sum(PROBS**2), rtol=1e-5
    )


def test_top_k_keeps_the_k_likeliest():
    np.testing.assert_allclose(distribution(top_k=2), [0, 4 / 7, 0, 3 / 7, 0], rtol=1e-5)
    np.testing.assert_allclose(distribution(top_k=99), PROBS, rtol=1e-5)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 3, 4]), (1.0, range(5))],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, kept):
    wanted = np.zeros(5)
    wanted[list(kept)] = PROBS[list(kept)]
    np.testing.assert_allclose(distribution(top_p=top_p), wanted / wanted.sum(), rtol=1e-5)


def test_min_p_is_relative_to_the_likeliest():
    np.testing.assert_allclose(
        distribution(min_p=0.3), [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85], rtol=1e-5
    )
    np.testing.assert_allclose(distribution(min_p=1.0), [0, 1, 0, 0, 0])


def test_filters_combine_in_the_order_of_transformers():
    # After the temperature 0.5 the likeliest two hold 0.25/0.2625; top-p looks at those.
    np.testing.assert_allclose(
        distribution(temperature=0.5, top_k=3, top_p=0.9), [0, 16 / 25, 0, 9 / 25, 0], rtol=1e-5
    )


def test_draws_follow_the_filtered_distribution():
    logits = jnp.tile(jnp.log(jnp.asarray(PROBS, jnp.float32)), (20_000, 1))
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = np.bincount(choose(logits, Sampling(top_k=3), keys), minlength=5) / 20_000
    np.testing.assert_allclose(drawn, distribution(top_k=3), atol=0.015)
    assert drawn[0] == drawn[2] == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-20, 20), min_size=2, max_size=8),
    st.floats(0.01, 1.0),
    st.integers(1, 8),
)
def test_something_is_always_left(logits, top_p, top_k):
    row = jnp.asarray([logits + [-jnp.inf] * (8 - len(logits))], jnp.float32)
    left = FILTER(row, stack_rows([Sampling(top_p=top_p, top_k=top_k, min_p=top_p)]))
    assert np.isfinite(np.asarray(left)).any()
    assert int(left.argmax()) == int(row.argmax())


@pytest.mark.parametrize(
    "options",
    [
        *({"temperature": value} for value in (-1.0, math.nan, math.inf, 1e-300)),
        {"top_k": 0},
        *({"top_p": value} for value in (0.0, math.nan)),
        {"min_p": 1.5},
    ],
)
def test_values_out_of_range_are_refused_by_name(options):
    flag = next(iter(options)).replace("_", "-")
    with pytest.raises(UserError, match=f"--{flag} is"):
        Sampling(**options)
