"""Gopher's rules of quality and repetition (Rae et al. 2021, arXiv:2112.11446, table A1), as they
were run for FineWeb."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.marks import MARKS
from llm_jax.data.curate.step import Checks, Step

BULLETS = ("•", "-")
ELLIPSES = ("...", "…")
TOP = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
PARAGRAPHS, LINES = re.compile(r"\n{2,}"), re.compile(r"\n+")


@dataclass(frozen=True, kw_only=True)
class GopherQuality(Step):
    """Length, symbols, lists and stop words of English text.

    Words without a character other than punctuation do not count for length.
    """

    kind: Literal["gopher_quality"] = "gopher_quality"
    min_words: int = 50
    max_words: int = 100_000
    min_word_length: float = 3.0
    max_word_length: float = 10.0
    max_symbols_per_word: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    min_stop_words: int = 2
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")

    def check(self, draft: Draft) -> Checks:
        words, text = draft.words, draft.text
        lengths = [len(word) for word in words if word not in MARKS and not MARKS.issuperset(word)]
        yield Check("words", len(lengths), self.min_words, self.max_words)
        mean = sum(lengths) / len(lengths) if lengths else 0.0
        yield Check("mean word length", mean, self.min_word_length, self.max_word_length)
        total = len(words) or 1
        yield Check("hashes per word", text.count("#") / total, high=self.max_symbols_per_word)
        ellipses = sum(map(text.count, ELLIPSES))
        yield Check("ellipses per word", ellipses / total, high=self.max_symbols_per_word)
        lines = text.splitlines() or [""]
        bullets = sum(line.lstrip().startswith(BULLETS) for line in lines)
        yield Check("bullet lines", bullets / len(lines), high=self.max_bullet_lines)
        ends = sum(line.rstrip().endswith(ELLIPSES) for line in lines)
        yield Check("lines ending in an ellipsis", ends / len(lines), high=self.max_ellipsis_lines)
        letters = sum(word.isalpha() or any(map(str.isalpha, word)) for word in words)
        yield Check("words with a letter", letters / total, self.min_alphabetic_words)
        stops = len(set(self.stop_words).intersection(words))
        yield Check("distinct stop words", stops, self.min_stop_words)


@dataclass(frozen=True, kw_only=True)
class GopherRepetition(Step):
    """Repeated lines, paragraphs and word n-grams, in shares of the text's characters.

    A duplicate is the second and each later occurrence. The scan for duplicate n-grams jumps over
    those that it finds.
    """

    kind: Literal["gopher_repetition"] = "gopher_repetition"
    max_duplicate_lines: float = 0.30
    max_duplicate_line_characters: float = 0.20
    max_duplicate_paragraphs: float = 0.30
    max_duplicate_paragraph_characters: float = 0.20

    def check(self, draft: Draft) -> Checks:
        text = draft.text
        size = len(text) or 1
        paragraphs = PARAGRAPHS.split(text.strip())
        number, characters = repeated(paragraphs)
        yield Check(
            "duplicate paragraphs", number / len(paragraphs), high=self.max_duplicate_paragraphs
        )
        yield Check(
            "characters of duplicate paragraphs",
            characters / size,
            high=self.max_duplicate_paragraph_characters,
        )
        lines = LINES.split(text)
        number, characters = repeated(lines)
        yield Check("duplicate lines", number / len(lines), high=self.max_duplicate_lines)
        yield Check(
            "characters of duplicate lines",
            characters / size,
            high=self.max_duplicate_line_characters,
        )
        yield from _ngrams(draft.words, size)


def _ngrams(words: list[str], size: int) -> Checks:
    spaced, plain = _joined(words, " "), _joined(words, "")
    for n, most in TOP:
        yield Check(f"characters of the top {n}-gram", top_ngram(spaced, n) / size, high=most)
    none = False
    for n, most in DUPLICATE:
        # Text without a 5-gram twice has no longer one twice.
        repeats = 0 if none else duplicate_ngrams(plain, n)
        none = repeats == 0
        yield Check(f"characters of duplicate {n}-grams", repeats / size, high=most)


def repeated(parts: list[str]) -> tuple[int, int]:
    """Number and characters of the parts that an earlier one equals."""
    seen: set[str] = set()
    number = characters = 0
    for part in parts:
        if part in seen:
            number += 1
            characters += len(part)
        else:
            seen.add(part)
    return number, characters


class Joined(NamedTuple):
    """Words joined by one mark or none.

    Attributes:
      places: where each word begins, and where one behind the last would.
    """

    text: str
    places: list[int]


def _joined(words: list[str], mark: str) -> Joined:
    sizes = map(len, words) if not mark else (len(word) + 1 for word in words)
    return Joined(mark.join(words), list(accumulate(sizes, initial=0)))


def top_ngram(spaced: Joined, n: int) -> int:
    """Characters that the most frequent n-gram (of several, the first) takes in all."""
    joined, places = spaced
    if len(places) <= n:
        return 0
    grams = Counter([joined[a : b - 1] for a, b in zip(places, places[n:], strict=False)])
    gram, count = grams.most_common(1)[0]
    return len(gram) * count


def duplicate_ngrams(plain: Joined, n: int) -> int:
    """Characters of the n-grams that occurred before, which do not overlap each other."""
    joined, places = plain
    seen: set[str] = set()
    characters = at = 0
    last = len(places) - 1 - n
    while at <= last:
        gram = joined[places[at] : places[at + n]]
        if gram in seen:
            characters += len(gram)
            at += n
        else:
            seen.add(gram)
            at += 1
    return characters
