"""Each published rule gives the verdicts of its own code (curation/make_goldens.py)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from typing import Any

import pytest
from curation_documents import FOLDER, documents

from llm_jax.config import ConfigError, UserError
from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.step import Step
from llm_jax.data.curate.steps.c4 import C4, C4Paragraphs
from llm_jax.data.curate.steps.code import Code
from llm_jax.data.curate.steps.fineweb import FineWeb
from llm_jax.data.curate.steps.gopher import GopherQuality, GopherRepetition
from llm_jax.data.curate.steps.hojichar import HojiChar
from llm_jax.data.curate.steps.hojichar_words import HojiCharWords, pieces, repeated_share
from llm_jax.data.curate.steps.llm_jp import (
    Compression,
    FullStops,
    JapaneseLines,
    JapaneseStart,
    WikipediaEnd,
)
from llm_jax.data.curate.steps.swallow import Swallow
from llm_jax.data.curate.words import count_sentences, words_of

RULES: dict[str, Step] = {
    "gopher_quality": GopherQuality(),
    "gopher_repetition": GopherRepetition(),
    "c4": C4(),
    "c4 as fineweb": C4(terminal_punctuation=False),
    "c4_paragraphs": C4Paragraphs(),
    "fineweb": FineWeb(),
    "hojichar": HojiChar(),
    "hojichar_words": HojiCharWords(),
    "swallow": Swallow(),
    "japanese_start": JapaneseStart(),
    "full_stops": FullStops(),
    "compression": Compression(),
    "japanese_lines": JapaneseLines(),
    "wikipedia_end": WikipediaEnd(),
}


CHANGE = ("c4", "c4 as fineweb", "japanese_lines", "wikipedia_end")
"""Rules that change the text, which becomes the same as by their own code."""


@pytest.fixture(scope="module")
def goldens() -> dict[str, Any]:
    return json.loads((FOLDER / "goldens.json").read_text(encoding="utf-8"))


def verdict(step: Step, text: str) -> tuple[bool, str]:
    draft = Draft(text)
    return all(check.holds for check in step.check(draft)), draft.text


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_a_published_rule_gives_the_verdict_of_its_own_code(
    name: str, goldens: dict[str, Any]
) -> None:
    wanted = goldens[name]["verdicts"]
    differ, digest = [], hashlib.sha256()
    for number, ((_, text), mark) in enumerate(zip(documents(), wanted, strict=True)):
        if mark == ".":
            continue
        kept, became = verdict(RULES[name], text)
        if kept != (mark == "1"):
            differ.append(number)
        if kept:
            became = became.replace("\n", "") if name == "japanese_lines" else became
            digest.update(became.encode() + b"\0")
    assert differ == []
    if name in CHANGE:
        assert digest.hexdigest() == goldens[name]["texts"]
    assert wanted.count("1") > 0


def test_rules_of_code() -> None:
    good = "def f(x):\n    return x + 1\n" * 20
    assert verdict(Code(), good)[0]
    assert not verdict(Code(), good + "x" * 1001)[0]
    assert verdict(Code(), good + "x" * 1000)[0]
    assert not verdict(Code(), ("x" * 101 + "\n") * 3)[0]
    assert verdict(Code(), ("x" * 100 + "\n") * 3)[0]
    assert not verdict(Code(), "{}();\n" * 30 + "ab")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't know, it's Mr. Smith's.", "I do n't know , it 's Mr. Smith 's ."),
        ("state-of-the-art U.S. a.b@c.com;", "state - of - the - art U.S. a.b@c.com ;"),
        ("3.5% of $1,000 (and/or 50km)...", "3.5 % of $ 1,000 ( and/or 50 km ) ..."),
        ("End.Next “one”—two", "End . Next “ one”—two"),
        ("f(self): '' x-Mr. 'em im, Cannot!", "f(self ): '' x - Mr. 'em i m , Can not !"),
    ],
)  # fmt: skip
def test_words_are_split_as_spacy_splits_them(text: str, words: str) -> None:
    assert words_of(text) == words.split()


def test_long_runs_of_machine_text_take_no_time_that_grows_with_the_square() -> None:
    """Each is a megabyte without a space, where the square would be 10^12 steps."""
    for run in ("(" * 10**6, "a:b@" * 250_000, "x" * 10**6, "ab.cd:" * 170_000):
        assert 1 <= len(words_of(run)) <= len(run)
    assert words_of("(" * 2000) == ["("] * 2000


@pytest.mark.parametrize(
    ("line", "sentences"),
    [("", 0), ("One", 1), ("One. Two", 2), ("Well... yes", 1), ('"Yes?" he said. (He did!)', 3)],
)
def test_sentences_begin_after_a_mark_that_ends_one(line: str, sentences: int) -> None:
    assert count_sentences(line) == sentences


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["1", "1-", "(", "a@", "。", "\n", "a:", "あ", "\n脚注 ", "090-1234 "]
)
def test_a_text_of_one_mark_takes_no_time_that_grows_with_its_square(text: str) -> None:
    long = text * (100_000 // len(text))
    for step in RULES.values():
        verdict(step, long)


def test_words_of_japanese_are_read_in_pieces_that_end_with_a_line() -> None:
    text = "一行目。\n二行目は長い。\n" * 3
    for size in (1, 5, 8, 13, 1000):
        made = list(pieces(text, size))
        assert "".join(made) == text and max(map(len, made)) <= size
    assert list(pieces(text, 13)) == ["一行目。\n二行目は長い。\n"[:13]] * 3
    assert list(pieces("", 5)) == []


def test_repeated_words_and_nouns() -> None:
    words = ["a", "b", "c", "d", "e", "f", "g"]
    assert repeated_share(words * 2, 7) == 2 / 8
    assert repeated_share(words, 8) == repeated_share([], 7) == 0
    checks = {
        one.name: one for one in HojiCharWords().check(Draft("リンゴ・ミカン\0・バナナ セール"))
    }
    assert checks["nouns"].value == 1.0 and not checks["nouns"].holds
    at = HojiCharWords(max_nouns=0.5, max_repeated_words=2 / 8)
    found = list(at.check(Draft("今日の仙台朝市ではリンゴがセール中")))
    assert found[0].value == 0.5 and not found[0].holds  # HojiChar drops what is at the threshold


def test_a_dictionary_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *words: None)
    with pytest.raises(UserError, match=r"fugashi and unidic_lite, .*llm-jax\[curate-ja\]"):
        HojiCharWords().prepare(FOLDER)
    with pytest.raises(ConfigError, match=r"hojichar_words\.ngram is 0"):
        HojiCharWords(ngram=0)
