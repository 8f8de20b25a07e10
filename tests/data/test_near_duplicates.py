"""Near-duplicates are found at the rates of the formula, and nothing else is."""

from __future__ import annotations

import random

import numpy as np
import pytest

from llm_jax.config import ConfigError
from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates, shingles

TOKENS = 204
PAIRS = 1000


def pair(similarity: float, draw: random.Random, letter: str) -> tuple[str, str]:
    """Two texts of words whose sets of 5-word shingles have about this Jaccard similarity."""
    size = TOKENS - 4
    shared = round(2 * similarity * size / (1 + similarity)) + 4
    words = [f"{letter}{draw.getrandbits(60):x}" for _ in range(2 * TOKENS - shared)]
    return " ".join(words[:TOKENS]), " ".join(words[:shared] + words[TOKENS:])


def resolved(step: NearDuplicates, texts: list[str]) -> np.ndarray:
    """(documents, 2): the first like it, and the bands that they share."""
    rows = [step.rows(Draft(text, number=i)) for i, text in enumerate(texts)]
    half = len(rows) // 2
    tables = [np.concatenate(rows[:half]), np.concatenate(rows[half:])]
    return step.resolve(tables, np.arange(len(texts)))


@pytest.mark.slow
@pytest.mark.parametrize("similarity", [0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
def test_planted_pairs_are_found_at_the_rate_of_the_formula(similarity: float) -> None:
    draw = random.Random(int(100 * similarity))
    texts = [text for _ in range(PAIRS) for text in pair(similarity, draw, "w")]
    one, other = (set(shingles(text, 5).tolist()) for text in texts[:2])
    assert len(one & other) / len(one | other) == pytest.approx(similarity, abs=0.005)
    step = NearDuplicates()
    first = resolved(step, texts)[:, 0]
    found = (first[1::2] == np.arange(0, 2 * PAIRS, 2)).mean()
    formula = 1 - (1 - similarity**step.rows_per_band) ** step.bands
    assert found == pytest.approx(formula, abs=0.03)
    # Precision: whatever is not its pair's second is its own first.
    wrong = (first[0::2] != np.arange(0, 2 * PAIRS, 2)).sum()
    wrong += (~np.isin(first[1::2] - np.arange(1, 2 * PAIRS, 2), (-1, 0))).sum()
    assert wrong == 0


def test_japanese_is_compared_by_characters() -> None:
    text = (
        "言語モデルは、文章の続きを予測するように訓練される。" * 3
        + "東京の朝は早い。駅前のパン屋では粉をこねる。"
    )
    other = (
        "空を見上げると、確かに灰色の雲が低く垂れこめていた。彼女は今日は雨が降りそうだと言った。"
    )
    answers = resolved(NearDuplicates(), [text, other, text.replace("早い", "寒い"), other[::-1]])
    assert answers[:, 0].tolist() == [0, 1, 0, 3]
    assert answers[2, 1] >= 1


def test_the_first_of_a_chain_stays() -> None:
    words = [f"w{i}" for i in range(300)]
    chain = [" ".join(words[i : i + 250]) for i in (0, 8, 16, 24)]
    answers = resolved(NearDuplicates(), ["another text of a few words", *chain])
    assert answers[:, 0].tolist() == [0, 1, 1, 1, 1]
    assert answers[1:2, 1].tolist() == [0] and (answers[2:, 1] >= 1).all()


def test_texts_without_a_token_are_like_no_other() -> None:
    answers = resolved(NearDuplicates(), ["…", "!!!", "…", "one two", "one two"])
    assert answers[:, 0].tolist() == [0, 1, 2, 3, 3]


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"near_duplicates\.bands is 0"):
        NearDuplicates(bands=0)
    with pytest.raises(ConfigError, match="at most 10,000"):
        NearDuplicates(bands=1000, rows_per_band=1000)
