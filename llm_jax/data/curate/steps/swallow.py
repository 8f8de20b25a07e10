"""The rules of Swallow Corpus v1 for Japanese (Okazaki et al. 2024, arXiv:2404.17733, table 1)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.hashing import character_ngrams
from llm_jax.data.curate.step import Checks, Step

SENTENCE = re.compile(r"[^。．！？!?]+[。．！？!?]?")
HIRAGANA, KATAKANA = re.compile("[\u3041-\u3096]"), re.compile("[\u30a1-\u30fa]")
KANJI = re.compile("[々〇〻\u3400-\u9fff\uf900-\ufaff]")
STOPS = re.compile("[、，。．！？]")
TOP = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


@dataclass(frozen=True, kw_only=True)
class Swallow(Step):
    """Length, script, sentences and repetition of Japanese text.

    A sentence ends at 。．！？!? or with its line. A Japanese letter is a kana, a kanji or
    one of 、，。．！？. Unlike in Gopher's rules n-grams are of characters: the share of the most
    frequent one in all, and of those seen twice in the different ones.
    """

    kind: Literal["swallow"] = "swallow"
    min_characters: int = 400
    min_japanese_letters: int = 400
    min_japanese: float = 0.5
    min_hiragana: float = 0.2
    max_katakana: float = 0.5
    min_mean_sentence: float = 20.0
    max_mean_sentence: float = 90.0
    max_sentence: int = 200
    max_ellipsis_sentences: float = 0.2
    max_duplicates: float = 0.30
    max_duplicate_characters: float = 0.20

    def check(self, draft: Draft) -> Checks:
        text = draft.text
        yield Check("characters", len(text), self.min_characters)
        yield from self._script(text)
        lines = [SENTENCE.findall(line) for line in text.split("\n")]
        sentences = [sentence for line in lines for sentence in line]
        yield from self._sentences(sentences)
        yield from self._duplicates("paragraph", ["".join(line) for line in lines])
        yield from self._duplicates("sentence", sentences)
        for n, most in TOP:
            counts = character_ngrams(text, n)
            yield Check(f"top {n}-gram", _share(counts.max(initial=0), counts.sum()), high=most)
        for n, most in DUPLICATE:
            counts = character_ngrams(text, n)
            share = _share((counts > 1).sum(), len(counts))
            yield Check(f"{n}-grams seen twice", share, high=most)

    def _script(self, text: str) -> Checks:
        hiragana, katakana = len(HIRAGANA.findall(text)), len(KATAKANA.findall(text))
        letters = hiragana + katakana + len(KANJI.findall(text)) + len(STOPS.findall(text))
        yield Check("Japanese letters", letters, self.min_japanese_letters)
        yield Check("share of Japanese letters", _share(letters, len(text)), self.min_japanese)
        yield Check("share of hiragana", _share(hiragana, letters), self.min_hiragana)
        yield Check("share of katakana", _share(katakana, letters), high=self.max_katakana)

    def _sentences(self, sentences: list[str]) -> Checks:
        lengths = [len(sentence) for sentence in sentences] or [0]
        mean = sum(lengths) / len(lengths)
        yield Check("mean sentence", mean, self.min_mean_sentence, self.max_mean_sentence)
        yield Check("longest sentence", max(lengths), high=self.max_sentence)
        ends = sum(sentence.strip().endswith(("・", "…")) for sentence in sentences)
        share = _share(ends, len(sentences))
        yield Check("sentences ending in an ellipsis", share, high=self.max_ellipsis_sentences)

    def _duplicates(self, name: str, parts: list[str]) -> Checks:
        again = {part: count - 1 for part, count in Counter(parts).items() if count > 1}
        share = _share(sum(again.values()), len(parts))
        yield Check(f"duplicate {name}s", share, high=self.max_duplicates)
        characters = sum(len(part) * count for part, count in again.items())
        share = _share(characters, sum(map(len, parts)))
        yield Check(f"characters of duplicate {name}s", share, high=self.max_duplicate_characters)


def _share(part: int | np.integer, whole: int | np.integer) -> float:
    return float(part / whole) if whole else 0.0
