"""Kneser-Ney: a worked example by hand, probabilities that sum to one, and what it must beat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.config import UserError
from llm_jax.data.dataset import TokenDataset
from llm_jax.evals import ngram
from llm_jax.evals.held_out import split_tokens

BOS, EOS = 0, 1


def stream(*documents: list[int]) -> np.ndarray:
    return np.concatenate([[BOS, *document, EOS] for document in documents]).astype(np.int32)


def distribution(model: ngram.NGram, context: list[int]) -> np.ndarray:
    """p(w | context) of every w but <s>, asked through the public door."""
    ids = [w for w in range(model.vocab_size) if w != BOS]
    asked = np.array([[*context, w] for w in ids], np.int32)
    return np.array([model.probabilities(row)[-1] for row in asked])


def test_a_bigram_model_by_hand():
    # a = 2, b = 3:  <s> a b </s>   <s> a a </s>   <s> b </s>
    model = ngram.train(stream([2, 3], [2, 2], [3]), order=2, vocab_size=4, bos_id=BOS)
    # Bigrams: <s>a 2, ab 1, b</s> 2, aa 1, a</s> 1, <s>b 1: n1 = 4, n2 = 2, n3 = 0, Y = 4/8.
    # D1 = 1 - 2·Y·2/4 = 1/2, D2 = 2 - 3·Y·0/2 = 2, which leaves nothing: half the count, 1.
    # Unigrams by predecessors: a {<s>, a} 2, b {a, <s>} 2, </s> {b, a} 2: n1 = 0, n2 = 3.
    # There is no Y: 1/2. D2 = 2 - 3·(1/2)·0/3 = 2 again: 1. γ = 3·1/6 goes to 3 tokens.
    unigram = (2 - 1) / 6 + (3 / 6) / 3
    # After a: a(a·) = 3 with aa, ab and a</s> once each, γ = 3·(1/2)/3.
    after_a = (1 - 0.5) / 3 + 0.5 * unigram
    # After <s>: <s>a 2 and <s>b 1 of 3, γ = (1 + 1/2)/3; </s> was never there.
    gamma = 1.5 / 3
    np.testing.assert_allclose(distribution(model, [BOS, 2]), [after_a] * 3)
    np.testing.assert_allclose(
        distribution(model, [BOS]),
        [gamma * unigram, (2 - 1) / 3 + gamma * unigram, (1 - 0.5) / 3 + gamma * unigram],
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(2, 6), max_size=12), min_size=1, max_size=12),
    st.integers(1, 5),
    st.lists(st.integers(2, 7), max_size=6),
)
def test_probabilities_sum_to_one_after_any_context(documents, order, context):
    # Token 7 is in the vocabulary and never in the text.
    model = ngram.train(stream(*documents), order=order, vocab_size=8, bos_id=BOS)
    p = distribution(model, [BOS, *context])
    assert np.all(p > 0)
    assert p.sum() == pytest.approx(1, abs=1e-9)


def test_documents_do_not_see_each_other():
    text = stream([2, 3, 4], [4, 3])
    model = ngram.train(text, order=5, vocab_size=8, bos_id=BOS)
    alone = model.probabilities(stream([4, 3]))
    np.testing.assert_array_equal(model.probabilities(text)[-4:], alone)
    assert np.isnan(alone[0])
    assert np.isfinite(alone[1:]).all()


def test_each_order_predicts_held_out_text_better_than_the_one_below(tiny_dataset):
    dataset = TokenDataset.open(tiny_dataset)
    train, held_out = split_tokens(dataset, "train"), split_tokens(dataset, "validation")
    scores = [
        ngram.train(
            train, order=n, vocab_size=dataset.tokenizer.vocab_size, bos_id=dataset.tokenizer.bos_id
        ).score(held_out, dataset.tokenizer)
        for n in (1, 2, 3, 5)
    ]
    losses = [score.loss for score in scores]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    assert scores[0].tokens == int((held_out != dataset.tokenizer.bos_id).sum())
    # It knows the text it was trained on far better than the text it was not.
    model = ngram.train(train, order=5, vocab_size=dataset.tokenizer.vocab_size, bos_id=1)
    assert model.score(train, dataset.tokenizer).loss < 0.5 * losses[-1]


@pytest.mark.parametrize(("tokens", "order"), [([0], 5), ([0, 2, 1], 0)])
def test_too_little_text_or_no_order_is_one_sentence(tokens, order):
    with pytest.raises(UserError):
        ngram.train(np.array(tokens, np.int32), order=order, vocab_size=8, bos_id=BOS)
