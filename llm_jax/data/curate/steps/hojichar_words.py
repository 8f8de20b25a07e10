"""HojiChar's default rules for Japanese that need a dictionary: nouns, and repeated words."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llm_jax.config import require
from llm_jax.config.extras import require_packages
from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.step import Checks, Step

PIECE = 50_000
"""Characters that MeCab reads at once; it takes about a kilobyte of memory for each."""
NOUN, MARK = "名詞", "補助記号"
"""Parts of speech of UniDic, the first field of a word's features."""


@dataclass(frozen=True, kw_only=True)
class HojiCharWords(Step):
    """Rows of nouns and repeated runs of words, as advertisements have them.

    Words are those of MeCab with UniDic (unidic-lite). Texts longer than 50,000 characters are read
    in pieces that end with a line.

    Attributes:
      max_nouns: share of the words that are nouns, punctuation and symbols apart, below which a
        document is kept.
      ngram: words of a run.
      max_repeated_words: share of the runs that occur more than once, below which a document is
        kept.
    """

    kind: Literal["hojichar_words"] = "hojichar_words"
    max_nouns: float = 0.80
    ngram: int = 7
    max_repeated_words: float = 0.40

    def __post_init__(self) -> None:
        require(0 < self.ngram <= 1000, f"hojichar_words.ngram is {self.ngram}: give 1 to 1,000.")
        for name in ("max_nouns", "max_repeated_words"):
            value = getattr(self, name)
            require(value > 0, f"hojichar_words.{name} is {value}: give a share above 0.")

    def prepare(self, folder: Path) -> None:
        """Raises `UserError` if MeCab or its dictionary is not installed."""
        require_packages("A step that reads words of Japanese", "fugashi", "unidic_lite")

    def check(self, draft: Draft) -> Checks:
        words = list(words_of_japanese(draft.text))
        kinds = Counter(kind for _, kind in words if kind != MARK)
        nouns = kinds[NOUN] / (kinds.total() or 1)
        yield Check("nouns", nouns, high=_below(self.max_nouns))
        repeats = repeated_share([word for word, _ in words], self.ngram)
        yield Check("repeated words", repeats, high=_below(self.max_repeated_words))


def _below(bound: float) -> float:
    """The largest number below `bound`: HojiChar drops what is at it."""
    return float(np.nextafter(bound, 0))


def repeated_share(words: list[str], n: int) -> float:
    """Occurrences of the runs of `n` words that occur more than once, as a share of all."""
    runs = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    return sum(count for count in runs.values() if count > 1) / (runs.total() or 1)


def words_of_japanese(text: str) -> Iterator[tuple[str, str]]:
    """Each word of `text` and its part of speech, in order."""
    tagger = _tagger()
    for piece in pieces(text.replace("\0", " ")):  # which would end the text for MeCab
        for node in tagger(piece):
            yield node.surface, node.feature_raw.partition(",")[0]


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """`text` in parts of at most `size` characters, cut behind a line's end where there is one."""
    start = 0
    while len(text) - start > size:
        end = text.rfind("\n", start, start + size) + 1 or start + size
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


@functools.cache
def _tagger() -> Any:
    import fugashi
    import unidic_lite

    return fugashi.GenericTagger(f'-r "{unidic_lite.DICDIR}/mecabrc" -d "{unidic_lite.DICDIR}"')
