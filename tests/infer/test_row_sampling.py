"""Rows with different settings against transformers' processors, and against each row alone."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.config import UserError
from llm_jax.infer.row_sampling import (
    bias_row,
    choose_rows,
    count_tokens,
    filter_rows,
    prompt_counts,
    row_logits,
    stack_rows,
    stops_too_early,
)
from llm_jax.infer.sampling import GREEDY, Sampling

V = 300
FILTERS = [
    Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    for temperature, top_k, top_p, min_p in itertools.product(
        (0.5, 1.0, 1.7), (None, 1, 40, 999), (None, 0.3, 0.95), (None, 0.02, 0.6)
    )
]
CHOOSE = jax.jit(choose_rows)


def logits_of(rows: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(rows, V)) * 2.5).astype(np.float32)


def test_rows_are_filtered_as_transformers_filters_each():
    torch, library = pytest.importorskip("torch"), pytest.importorskip("transformers")
    logits_BV = logits_of(len(FILTERS))
    ours = np.asarray(jax.jit(filter_rows)(logits_BV, stack_rows(FILTERS)))
    for logits_V, sampling, mine in zip(logits_BV, FILTERS, ours, strict=True):
        warpers = [library.TemperatureLogitsWarper(sampling.temperature)]
        if sampling.top_k:
            warpers.append(library.TopKLogitsWarper(sampling.top_k))
        if sampling.top_p:
            warpers.append(library.TopPLogitsWarper(sampling.top_p))
        if sampling.min_p:
            warpers.append(library.MinPLogitsWarper(sampling.min_p))
        theirs = torch.tensor(logits_V)[None]
        for warper in warpers:
            theirs = warper(None, theirs)
        np.testing.assert_allclose(mine, theirs[0].numpy(), rtol=1e-6, err_msg=str(sampling))


def test_penalties_are_those_of_transformers_and_of_openai():
    torch, library = pytest.importorskip("torch"), pytest.importorskip("transformers")
    prompt, made = [5, 9, 9], [7, 9, 7, 7]
    settings = [
        Sampling(repetition_penalty=1.3),
        Sampling(presence_penalty=0.7),
        Sampling(frequency_penalty=-0.4),
        Sampling(repetition_penalty=0.8, presence_penalty=0.5, frequency_penalty=0.25),
        Sampling(),
        Sampling(logit_bias=((3, 4.5), (9, -100.0))),
    ]
    logits_BV = logits_of(len(settings))
    counts_BV = jnp.asarray(np.stack([prompt_counts(prompt, V)] * len(settings)))
    for token in made:
        tokens_B = jnp.full(len(settings), token)
        counts_BV = count_tokens(counts_BV, tokens_B, jnp.ones(len(settings), bool))
    counts_BV = count_tokens(counts_BV, tokens_B, jnp.zeros(len(settings), bool))
    bias_BV = np.stack([bias_row(one, V) for one in settings])
    ours = jax.jit(row_logits)(logits_BV, stack_rows(settings), counts_BV, bias_BV)
    times_V = np.bincount(made, minlength=V)
    for logits_V, sampling, mine in zip(logits_BV, settings, np.asarray(ours), strict=True):
        biased = torch.tensor(logits_V)[None]
        if sampling.logit_bias:
            bias = {(token,): value for token, value in sampling.logit_bias}
            biased = library.SequenceBiasLogitsProcessor(bias)(torch.tensor([prompt]), biased)
        ids = torch.tensor([prompt + made])
        penalty = library.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
        wanted = penalty(ids, biased)[0].numpy()
        wanted = wanted - sampling.presence_penalty * (times_V > 0)
        wanted = wanted - sampling.frequency_penalty * times_V
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-6, err_msg=str(sampling))


def test_a_row_draws_the_same_token_whatever_is_beside_it():
    settings = [GREEDY, Sampling(), *FILTERS[::9], Sampling(repetition_penalty=1.5)]
    logits_BV, B = logits_of(len(settings), seed=1), len(settings)
    keys_B = jax.random.split(jax.random.key(3), B)
    counts_BV = np.stack([prompt_counts([1, 2], V)] * B)
    together = CHOOSE(logits_BV, stack_rows(settings), keys_B, counts_BV)
    assert int(together[0]) == logits_BV[0].argmax()
    for row, sampling in enumerate(settings):
        alike = stack_rows([sampling] * B)  # the same shape: it compiles once
        assert int(CHOOSE(logits_BV, alike, keys_B, counts_BV)[row]) == int(together[row])


def test_the_first_of_equal_tokens_is_greedy():
    logits_BV = np.zeros((2, V), np.float32)
    logits_BV[1, [7, 200]] = 3
    keys_B = jax.random.split(jax.random.key(0), 2)
    assert CHOOSE(logits_BV, stack_rows([GREEDY] * 2), keys_B).tolist() == [0, 7]


@pytest.mark.slow
def test_draws_follow_the_filtered_distribution_over_many_blocks():
    sampling, draws = Sampling(temperature=1.5, top_p=0.9), 50_000
    logits_V = logits_of(1, seed=2)[0]
    kept_V = np.asarray(filter_rows(logits_V[None], stack_rows([sampling])))[0]
    chance_V = np.exp(kept_V - np.logaddexp.reduce(kept_V))
    keys = jax.random.split(jax.random.key(5), draws)
    rows = stack_rows([sampling] * draws)
    drawn = CHOOSE(jnp.broadcast_to(jnp.asarray(logits_V), (draws, V)), rows, keys)
    times_V = np.bincount(drawn, minlength=V)
    assert not times_V[chance_V == 0].any()
    expected = draws * chance_V[chance_V > 0]
    chi2 = float(((times_V[chance_V > 0] - expected) ** 2 / expected).sum())
    degrees = len(expected) - 1
    assert abs(chi2 - degrees) < 4 * np.sqrt(2 * degrees)


def test_only_allowed_tokens_are_chosen_and_no_stop_before_the_least_length():
    settings = [GREEDY, Sampling(min_tokens=4), Sampling(min_tokens=2)]
    logits_BV = logits_of(3)
    logits_BV[:, 17] = 50
    rows, keys_B = stack_rows(settings), jax.random.split(jax.random.key(0), 3)
    allowed_BV = np.ones((3, V), bool)
    allowed_BV[0] = False
    allowed_BV[0, [8, 11]] = True
    stop_BK = np.array([[-1, -1], [17, 3], [17, -1]], np.int32)
    forbidden_BK = stops_too_early(stop_BK, np.array([0, 3, 2]), rows)
    made = CHOOSE(
        logits_BV, rows, keys_B, allowed_BV=allowed_BV, forbidden_BK=forbidden_BK
    ).tolist()
    assert made[0] == (8 if logits_BV[0, 8] > logits_BV[0, 11] else 11)
    assert made[1] != 17 and made[2] == 17


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"repetition_penalty": 0.0}, "--repetition-penalty is 0.0"),
        ({"presence_penalty": 2.5}, "--presence-penalty is 2.5"),
        ({"frequency_penalty": float("nan")}, "--frequency-penalty is nan"),
        ({"logit_bias": ((-1, 1.0),)}, "--logit-bias gives token -1"),
        ({"logit_bias": ((1, 101.0),)}, "the bias 101.0"),
        ({"logit_bias": ((1, 1.0), (1, 2.0))}, "--logit-bias names a token twice"),
        ({"min_tokens": -1}, "--min-tokens is -1"),
    ],
)
def test_penalties_out_of_range_are_refused_by_name(options, flag):
    with pytest.raises(UserError, match=flag):
        Sampling(**options)
