"""A classifier that learns from examples, and the step that applies it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from curation_documents import documents
from safetensors.numpy import save_file

from llm_jax.config import UserError
from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.quality_model import BUCKETS, QualityModel, train
from llm_jax.data.curate.steps.classifier import Classifier

SPAM = ("buy", "cheap", "pills", "now", "click", "free", "offer", "price", "casino", "bonus")


def spam(draw: random.Random) -> str:
    return " ".join(SPAM[int(draw.random() * len(SPAM))] for _ in range(60))


@pytest.fixture(scope="module")
def good() -> list[str]:
    return [text for _, text in documents()[:80] if text.strip()]


@pytest.fixture(scope="module")
def bad() -> list[str]:
    draw = random.Random(3)
    return [spam(draw) for _ in range(80)]


def test_it_tells_spam_from_shakespeare_and_is_the_same_each_time(
    good: list[str], bad: list[str], tmp_path: Path
) -> None:
    model, facts = train(good, bad)
    assert (facts["good"], facts["bad"]) == (len(good), 80)
    assert facts["accuracy"] > 0.95 and facts["auc"] > 0.99
    draw = random.Random(4)
    assert max(model.score(spam(draw)) for _ in range(20)) < 0.3
    assert np.mean([model.score(text) for _, text in documents()[100:140]]) > 0.6
    model.save(tmp_path / "a.safetensors", facts)
    train(good, bad)[0].save(tmp_path / "b.safetensors", facts)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    step = Classifier(file=str(tmp_path / "a.safetensors"), min_score=0.5)
    ready = step.ready(tmp_path)
    draft = Draft(spam(draw))
    (check,) = ready.check(draft)
    assert not check.holds and draft.notes["classifier"] == round(model.score(draft.text), 4)


def test_labels_without_a_pattern_are_not_learned(good: list[str]) -> None:
    _, facts = train(good[::2], good[1::2])
    assert 0.2 < facts["auc"] < 0.8


def test_files_that_are_no_classifier(tmp_path: Path, good: list[str]) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match="no classifier"):
        QualityModel.load(str(path))
    path.write_bytes(b"not one")
    with pytest.raises(UserError, match="is not a classifier"):
        QualityModel.load(str(path))
    save_file({"weights": np.zeros(8, np.float32), "bias": np.zeros(1, np.float32)}, path)
    with pytest.raises(UserError, match=f"{BUCKETS:,} weights"):
        QualityModel.load(str(path))
    with pytest.raises(UserError, match="--bad has 1 documents"):
        train(good, ["one text"])


def test_a_score_is_a_probability() -> None:
    model = QualityModel(np.full(BUCKETS, 1e6, np.float32), 0.0)
    assert model.score("a b c") == pytest.approx(1.0) and model.score("") == 0.5
    assert json.dumps(model.score("x"))
