"""Speculation changes no distribution: chi-squared tests of whole sequences on five tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.infer.row_sampling import choose_rows, row_logits, stack_rows
from llm_jax.infer.sampling import GREEDY, Sampling
from llm_jax.infer.speculative import (
    LONGEST,
    SHORTEST,
    accept_drawn,
    accept_rows,
    choose_each,
    look_up,
)

LOOK_UP = jax.jit(look_up, static_argnums=2)
DRAWS, V, K = 100_000, 5, 3
RANDOM = np.random.default_rng(0)
TARGET_VV = (RANDOM.normal(size=(V, V)) * 1.2).astype(np.float32)
"""Logits of the next token given the last one, of the model."""
DRAFT_VV = (TARGET_VV + RANDOM.normal(size=(V, V))).astype(np.float32)
SAMPLING = Sampling(temperature=0.8, top_p=0.95)
START = 2


def chances(sampling: Sampling) -> np.ndarray:
    """Probabilities (V³,) of the three tokens after START."""
    logits = np.asarray(row_logits(TARGET_VV, stack_rows([sampling] * V)))
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    return (p[START][:, None, None] * p[:, :, None] * p[None]).reshape(-1)


def chi2_per_degree(tokens_B3: np.ndarray, p: np.ndarray) -> float:
    """(chi-squared - degrees) / its standard deviation; about normal."""
    cell_B = (tokens_B3 * np.array([V * V, V, 1])).sum(axis=1)
    times = np.bincount(cell_B, minlength=V**3)
    assert not times[p == 0].any()
    expected = DRAWS * p[p > 0]
    degrees = len(expected) - 1
    return (((times[p > 0] - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees)


def filled_up(tokens_BT: jax.Array, key: jax.Array) -> np.ndarray:
    """Three tokens per row: what is missing after a round is drawn plainly."""
    rows, last_B = stack_rows([SAMPLING] * DRAWS), jnp.full(DRAWS, START)
    made = []
    for place in range(3):
        keys_B = jax.random.split(jax.random.fold_in(key, place), DRAWS)
        plain_B = jax.jit(choose_rows)(jnp.asarray(TARGET_VV)[last_B], rows, keys_B)
        last_B = jnp.where(tokens_BT[:, place] >= 0, tokens_BT[:, place], plain_B)
        made.append(last_B)
    return np.asarray(jnp.stack(made, axis=1))


def drafted(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Three drafts per row from the draft's chain, and the filtered logits of each."""
    rows, last_B = stack_rows([SAMPLING] * DRAWS), jnp.full(DRAWS, START)
    draft, q = [], []
    for place in range(K):
        keys_B = jax.random.split(jax.random.fold_in(key, place), DRAWS)
        logits_BV = jnp.asarray(DRAFT_VV)[last_B]
        last_B = jax.jit(choose_rows)(logits_BV, rows, keys_B)
        draft.append(last_B)
        q.append(jax.jit(row_logits)(logits_BV, rows))
    return jnp.stack(draft, axis=1), jnp.stack(q, axis=1)


def target_logits(draft_BK: jax.Array) -> jax.Array:
    """Unfiltered logits of the model at START and after each draft, (B, T, V)."""
    before_BT = jnp.pad(draft_BK, ((0, 0), (1, 0)), constant_values=START)
    return jnp.asarray(TARGET_VV)[before_BT]


@pytest.mark.slow
def test_drafts_of_a_model_leave_the_distribution_as_it_is():
    draft_BK, q_BKV = drafted(jax.random.key(1))
    flat = stack_rows([SAMPLING] * (DRAWS * (K + 1)))
    p_BTV = jax.jit(row_logits)(target_logits(draft_BK).reshape(-1, V), flat)
    count_B = jnp.arange(DRAWS) % (K + 1)  # rows with fewer drafts, and with none
    tokens_BT, accepted_B = jax.jit(accept_rows)(
        draft_BK, count_B, q_BKV, p_BTV.reshape(DRAWS, K + 1, V),
        jax.random.split(jax.random.key(2), DRAWS),
    )  # fmt: skip
    assert ((tokens_BT >= 0).sum(axis=1) == accepted_B + 1).all() and (accepted_B <= count_B).all()
    accepted = np.asarray(accepted_B)[np.asarray(count_B) == K]
    assert 0.1 < (accepted == K).mean() < 0.9
    chi2 = chi2_per_degree(filled_up(tokens_BT, jax.random.key(3)), chances(SAMPLING))
    assert abs(chi2) < 4
    # The test would see a wrong rule: drafts that are all accepted.
    wrong = chi2_per_degree(np.asarray(draft_BK), np.maximum(chances(SAMPLING), 1e-9))
    assert wrong > 50


@pytest.mark.slow
def test_the_first_token_is_accepted_as_often_as_the_distributions_overlap():
    """Leviathan et al. 2023, corollary 3.6: the sum of min(p, q)."""
    draft_BK, q_BKV = drafted(jax.random.key(4))
    both = [
        jax.jit(row_logits)(one[START][None], stack_rows([SAMPLING]))
        for one in (TARGET_VV, DRAFT_VV)
    ]
    p, q = (np.asarray(jax.nn.softmax(one[0])) for one in both)
    p_BTV = jnp.broadcast_to(both[0], (DRAWS, 2, V))
    _, accepted_B = jax.jit(accept_rows)(
        draft_BK[:, :1], jnp.ones(DRAWS, int), q_BKV[:, :1], p_BTV,
        jax.random.split(jax.random.key(5), DRAWS),
    )  # fmt: skip
    assert abs(float(accepted_B.mean()) - np.minimum(p, q).sum()) < 0.008


@pytest.mark.slow
def test_drafts_that_are_not_random_leave_the_distribution_as_it_is():
    draft_BK = jnp.broadcast_to(jnp.array([1, 4, 0]), (DRAWS, K))
    keys_BT = jax.random.split(jax.random.key(6), (DRAWS, K + 1))
    rows = stack_rows([SAMPLING] * DRAWS)
    drawn_BT = jax.jit(choose_each)(target_logits(draft_BK), rows, keys_BT)
    tokens_BT, accepted_B = jax.jit(accept_drawn)(draft_BK, jnp.full(DRAWS, K), drawn_BT)
    assert 0 < float((accepted_B > 0).mean()) < 1
    chi2 = chi2_per_degree(filled_up(tokens_BT, jax.random.key(7)), chances(SAMPLING))
    assert abs(chi2) < 4


@pytest.mark.slow
def test_greedy_rows_accept_what_is_most_likely_and_nothing_else():
    p_BTV = jnp.asarray(RANDOM.normal(size=(2, K + 1, V)), jnp.float32)
    best_BT = p_BTV.argmax(axis=-1)
    draft_BK = best_BT[:, :K].at[1, 1].set((best_BT[1, 1] + 1) % V)
    one_hot = jax.jit(row_logits)(p_BTV.reshape(-1, V), stack_rows([GREEDY] * 8)).reshape(
        2, K + 1, V
    )
    q_BKV = jnp.zeros((2, K, V))
    keys_B, count_B = jax.random.split(jax.random.key(0), 2), jnp.full(2, K)
    wanted = [best_BT[0].tolist(), [*best_BT[1, :2].tolist(), -1, -1]]
    by_rule, accepted_B = jax.jit(accept_rows)(draft_BK, count_B, q_BKV, one_hot, keys_B)
    assert (by_rule.tolist(), accepted_B.tolist()) == (wanted, [3, 1])
    keys_BT = jax.random.split(keys_B[0], (2, K + 1))
    drawn_BT = jax.jit(choose_each)(p_BTV, stack_rows([GREEDY] * 2), keys_BT)
    tokens_BT, accepted_B = accept_drawn(draft_BK, count_B, drawn_BT)
    assert (tokens_BT.tolist(), accepted_B.tolist()) == (wanted, [3, 1])


def looked_up(ids: list[int], most: int) -> list[int]:
    text_BS = np.full((1, 32), 1, np.int32)  # what is behind a text is not in it
    text_BS[0, : len(ids)] = ids
    draft_BK, count_B = LOOK_UP(text_BS, np.array([len(ids)]), 5)
    return draft_BK[0, : min(int(count_B[0]), most)].tolist()


def test_prompt_lookup_takes_the_longest_and_then_the_latest_match():
    ids = [7, 1, 2, 3, 8, 9, 2, 3, 5, 6, 1, 2, 3]
    assert looked_up(ids, 3) == [8, 9, 2]  # 1 2 3 came before, though 2 3 came later
    assert looked_up([*ids, 5], 9) == [6, 1, 2, 3, 5]
    assert looked_up([1, 2, 3], 4) == looked_up([1], 4) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=32), st.integers(1, 5))
def test_prompt_lookup_equals_a_search_of_the_whole_text(ids, most):
    found: list[int] = []
    for size in range(min(LONGEST, len(ids)), SHORTEST - 1, -1):
        places = [end for end in range(size, len(ids)) if ids[end - size : end] == ids[-size:]]
        if places:
            found = ids[places[-1] : places[-1] + most]
            break
    assert looked_up(ids, most) == found
