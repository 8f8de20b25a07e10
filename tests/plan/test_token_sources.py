"""Several texts, each with its own number of different tokens."""

from __future__ import annotations

import math

import pytest
from asking import Capture, ask, refusal, told

from llm_jax.laws.published import preset
from llm_jax.plan.limited_text import R_STAR_D, Source, data_constrained, one_source

LAW = preset("besiroglu-2024")


def test_effective_tokens_add_up_over_the_sources() -> None:
    """Muennighoff et al. 2023, eq. 5, by hand: 30B tokens of 20B, and 70B of 2T."""
    law = data_constrained(
        LAW,
        (Source(name="ja", unique=20e9, share=0.3), Source(name="en", unique=2e12, share=0.7)),
    )
    repeats = 30 / 20 - 1
    ja = 20e9 * (1 + R_STAR_D * (1 - math.exp(-repeats / R_STAR_D)))
    assert law.effective_tokens(100e9) == pytest.approx(ja + 70e9)
    assert law.free_tokens == pytest.approx(20e9 / 0.3)
    assert law.loss(1e9, 60e9) == LAW.loss(1e9, 60e9)
    assert law.loss(1e9, 400e9) > LAW.loss(1e9, 400e9)


def test_one_source_is_unique_tokens() -> None:
    """Equal halves of one text are that text."""
    one = data_constrained(LAW, one_source(1e10))
    halves = tuple(Source(name=name, unique=5e9, share=0.5) for name in "ab")
    two = data_constrained(LAW, halves)
    for params, tokens in ((1e8, 5e9), (1e9, 5e10), (1e10, 1e12)):
        assert two.loss(params, tokens) == pytest.approx(one.loss(params, tokens), rel=1e-12)
    assert two.optimum(1e22).params == pytest.approx(one.optimum(1e22).params, rel=1e-6)


def test_epochs_by_source_and_which_one_binds(capsys: Capture) -> None:
    words = ("--usd", "100k", "--source", "ja=20B:0.3", "--source", "en=2T:0.7")
    made = ask(capsys, *words)
    rows = {row["name"]: row for row in made["sources"]}
    assert rows["ja"]["binding"] and not rows["en"]["binding"]
    for name, unique, share in (("ja", 20e9, 0.3), ("en", 2e12, 0.7)):
        assert rows[name]["tokens"] == pytest.approx(share * made["tokens"])
        assert rows[name]["epochs"] == pytest.approx(share * made["tokens"] / unique)
    assert made["epochs"] == rows["ja"]["epochs"]
    assert rows["en"]["effective_tokens"] == rows["en"]["tokens"]
    assert rows["ja"]["effective_tokens"] < rows["ja"]["tokens"]
    free = ask(capsys, "--usd", "100k")
    assert made["loss"] > free["loss"]
    assert any("'ja' binds" in reason for reason in made["reasons"])
    said = told(capsys, *words)
    assert "ja (binds)" in said


@pytest.mark.slow
def test_a_small_source_is_the_limit_by_name(capsys: Capture) -> None:
    made = ask(capsys, "--usd", "100k", "--source", "ja=1B:0.5", "--source", "en=2T:0.5")
    assert made["epochs"] > 16
    assert made["limits"][0].startswith("Your text 'ja' is the limit")


def test_sources_that_cannot_be(capsys: Capture) -> None:
    usd = ("--usd", "100")
    assert "add up to 0.9" in refusal(capsys, *usd, "--source", "a=1B:0.4", "--source", "b=1B:0.5")
    assert "write NAME=TOKENS:SHARE" in refusal(capsys, *usd, "--source", "a=1B")
    assert "share 2" in refusal(capsys, *usd, "--source", "a=1B:2")
    both = ("--source", "a=1B:1", "--unique-tokens", "1B")
    assert "leave it out" in refusal(capsys, *usd, *both)
