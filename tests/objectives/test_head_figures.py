"""Figures of labelled examples: beside scikit-learn's and by hand."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import tiny

from llm_jax.config import EncoderConfig
from llm_jax.objectives.figures import (
    LONGEST_ANSWER,
    answer_figures,
    best_span,
    classify_figures,
    entities,
    pair_figures,
    tag_figures,
)

TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
MODEL = EncoderConfig(
    vocab_size=64, num_layers=1, d_model=8, num_heads=1, d_ff=8, max_seq_len=64, head="tag",
    labels=TAGS,
)  # fmt: skip
CONFIG = tiny.run_config(model=MODEL, objective="tag")


def test_labels_are_judged_as_scikit_learn_does() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    targets, predicted = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    rows = {"targets": np.append(targets, -1), "predicted": np.append(predicted, 0)}
    found = classify_figures(rows, CONFIG)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(targets, predicted))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))


def test_entities_begin_and_end_as_in_conll() -> None:
    tags = ["B-PER", "I-PER", "O", "I-LOC", "I-LOC", "B-LOC", "I-PER", "O"]
    assert entities(tags) == [("PER", 0, 1), ("LOC", 3, 4), ("LOC", 5, 5), ("PER", 6, 6)]
    names = {tag: i for i, tag in enumerate(TAGS)}
    wanted = np.array([[names[tag] for tag in tags], [names["O"]] * 6 + [-1, -1]])
    made = wanted.copy()
    made[0, 1], made[1, 0] = names["O"], names["B-PER"]
    found = tag_figures({"targets": wanted, "predicted": made}, CONFIG)
    # 4 entities wanted, 5 made, 3 of them right; 12 of 14 words.
    assert found == pytest.approx({"accuracy": 12 / 14, "entity_f1": 2 * 3 / 9})
    plain = dataclasses.replace(MODEL, labels=("NOUN", "VERB", "X", "Y", "Z"))
    config = tiny.run_config(model=plain, objective="tag")
    assert set(tag_figures({"targets": wanted, "predicted": made}, config)) == {
        "accuracy", "macro_f1",
    }  # fmt: skip


def test_the_likeliest_span_is_that_of_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        logits = rng.normal(size=(2, 60))
        logits[:, 0] = -9
        spans = [
            (a, b)
            for a, b in itertools.product(range(5, 50), repeat=2)
            if a <= b < a + LONGEST_ANSWER
        ]
        wanted = max(spans, key=lambda span: logits[0, span[0]] + logits[1, span[1]])
        assert best_span(logits, 5, 50) == wanted
    logits[:, 0] = 9
    assert best_span(logits, 5, 50) == (0, 0)
    assert best_span(logits, 5, 5) == (0, 0)


def test_answers_are_judged_by_their_tokens() -> None:
    logits = np.full((3, 2, 16), -5.0)
    logits[0, 0, 6] = logits[0, 1, 8] = 5  # wanted 7 to 9: two of three tokens
    logits[1, 0, 0] = logits[1, 1, 0] = 5  # no answer, as wanted
    rows = {
        "logits": logits,
        "targets": np.array([[7, 9], [0, 0], [-1, -1]]),
        "size": np.full(3, 12),
        "second": np.full(3, 5),
    }
    found = answer_figures(rows, CONFIG)
    assert found == pytest.approx({"exact_match": 1 / 2, "f1": (2 / 3 + 1) / 2})


def test_pairs_are_judged_by_rank_or_by_the_nearest() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 40, 3)))
    scores = np.round(np.sum(a * b, axis=1) + rng.normal(size=40) / 2, 1)
    rows = {"a": a, "b": b, "targets": np.zeros(40), "scores": scores}
    wanted = stats.spearmanr(np.sum(a * b, axis=1), scores).statistic
    assert pair_figures(rows, CONFIG) == pytest.approx({"spearman": float(wanted)})
    near = np.argmax(a @ b.T, axis=1) == np.arange(40)
    rows |= {"scores": np.full(40, np.nan)}
    assert pair_figures(rows, CONFIG) == {"recall_at_1": np.mean(near)}
