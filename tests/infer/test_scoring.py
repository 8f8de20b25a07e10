"""Scores against plain log-softmax, alone and among others, on one device and over a mesh."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny

from llm_jax.config import ParallelConfig, UserError
from llm_jax.convert.parity import our_logits
from llm_jax.infer.scoring import SCORED, Scorer
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.state import abstract_state


@pytest.fixture(scope="module")
def model():
    config = tiny.run_config()
    return config, tiny.parameters(config.model)


@pytest.fixture(scope="module")
def scorer(model):
    return Scorer(*model, vocab_size=60)


def plain(model, context, continuation, vocab_size=60):
    """Log-probabilities and greediness of one pair, from the logits of all positions."""
    config, params = model
    whole = np.array([[*context, *continuation]], np.int32)
    logits = our_logits(params, config.model, whole[:, :-1])[0, -len(continuation) :, :vocab_size]
    log_probs = np.asarray(jax.nn.log_softmax(logits))[range(len(continuation)), continuation]
    return log_probs, bool((logits.argmax(-1) == continuation).all())


def random_pairs(count, most, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        sizes = rng.integers(1, most, 2)
        yield tuple(rng.integers(3, 60, size).tolist() for size in sizes)


@pytest.mark.slow
def test_scores_are_those_of_each_pair_alone(model, scorer):
    pairs = list(random_pairs(12, 30))
    greedy = [5, 7, 9]
    config, params = model
    for _ in range(3):  # a continuation that the model would choose
        logits = our_logits(params, config.model, np.array([greedy], np.int32))
        greedy.append(int(logits[0, -1, :60].argmax()))
    pairs.append((greedy[:3], greedy[3:]))
    found = scorer.score(pairs)
    for one, (context, continuation) in zip(found, pairs, strict=True):
        log_probs, best = plain(model, context, continuation)
        np.testing.assert_allclose(one.token_log_probs, log_probs, atol=2e-5)
        assert one.log_prob == pytest.approx(log_probs.sum(), abs=1e-4)
        assert one.greedy == best
    assert found[-1].greedy
    assert scorer.truncated == 0
    # Few shapes, and a pair's score does not depend on what is scored with it.
    assert len(scorer.shapes) <= 3
    np.testing.assert_allclose(
        scorer.score(pairs[3:4])[0].token_log_probs, found[3].token_log_probs, atol=1e-6
    )


def test_answers_of_one_token_share_the_context(model, scorer):
    context = [3, 4, 5, 6]
    before = len(scorer.shapes)
    found = scorer.score([(context, [answer]) for answer in range(3, 60)] + [(context, [])])
    assert len(scorer.shapes) <= before + 1
    for answer, one in zip(range(3, 60), found, strict=False):
        assert one.log_prob == pytest.approx(plain(model, context, [answer])[0][0], abs=2e-5)
    assert sum(one.greedy for one in found[:-1]) <= 1
    assert found[-1] == (0.0, True, ())
    assert SCORED < 57  # more answers than a row of few has


def test_what_is_too_long_is_cut_on_the_left_and_counted(model, scorer):
    before, longest = scorer.truncated, scorer.max_len
    ids = np.random.default_rng(1).integers(3, 60, 2 * longest).tolist()
    cut, fits = scorer.score([(ids, [7, 8]), (ids[-longest + 1 :], [7, 8])])
    assert scorer.truncated == before + 1
    np.testing.assert_allclose(cut.token_log_probs, fits.token_log_probs, atol=1e-6)
    with pytest.raises(UserError, match="context"):
        scorer.score([([], [7])])
    with pytest.raises(UserError, match=str(longest)):
        scorer.score([([5], ids)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "parallel", [{"fsdp": 2, "tensor": 2, "context": 2}, {"data": 2, "pipeline": 2, "tensor": 2}]
)
def test_the_trainers_mesh_gives_the_same_scores(model, scorer, parallel):
    config, params = model
    config = tiny.run_config(parallel=ParallelConfig(**{"data": 1, **parallel}))
    mesh = make_mesh(config.parallel)
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh)["params"])
    placed = jax.device_put(params, where)
    pairs = list(random_pairs(9, 20, seed=2))
    found = Scorer(config, placed, mesh=mesh, vocab_size=60).score(pairs)
    for ours, alone in zip(found, scorer.score(pairs), strict=True):
        np.testing.assert_allclose(ours.token_log_probs, alone.token_log_probs, atol=2e-5)
        assert ours.greedy == alone.greedy


def test_weights_that_are_not_numbers_are_one_sentence(model):
    config, params = model
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params)
    with pytest.raises(UserError, match="finite"):
        Scorer(config, broken).score([([3], [4])])
