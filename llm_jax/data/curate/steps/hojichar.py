"""HojiChar's default rules for Japanese that need no dictionary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.hashing import character_ngrams, code_points
from llm_jax.data.curate.special import special_characters
from llm_jax.data.curate.step import Checks, Step

BOARD = re.compile(
    r"\d{4}[年.\-/] *\d{1,2}[月.\-/] *\d{1,2}日*|コメント|SOLD OUT|レビュー|投稿|ページ"
    r"|\([月火水木金土日]\)|質問|\d話|楽天市場|-"
)
ELLIPSIS_LINE = re.compile(r"(?:\.{3}|…)\n")


@dataclass(frozen=True, kw_only=True)
class HojiChar(Step):
    """Boards and shops, symbols, repetition, and lines that are no sentences.

    Attributes:
      max_board_marks: dates, comments, reviews, pages, weekdays and hyphens.
      max_repetition: occurrences of the most frequent character n-grams (as many as the square root
        of the number of different ones, and seen twice) as a share of all.
      max_run: length of a run of one character.
      max_special: punctuation, white space, symbols and emoji, as a share of the characters.
    """

    kind: Literal["hojichar"] = "hojichar"
    max_board_marks: int = 14
    ngram: int = 5
    max_repetition: float = 0.33
    max_run: int = 199
    max_special: float = 0.4
    max_ellipsis_lines: float = 0.7
    short_line: int = 10
    max_short_lines: float = 0.5

    def check(self, draft: Draft) -> Checks:
        text = draft.text
        yield Check("marks of boards", len(BOARD.findall(text)), high=self.max_board_marks)
        yield Check("longest run of one character", longest_run(text), high=self.max_run)
        special = special_characters(text) / (len(text) or 1)
        yield Check("special characters", special, high=self.max_special)
        ellipses, newlines = len(ELLIPSIS_LINE.findall(text)), max(text.count("\n"), 1)
        yield Check(
            "lines ending in an ellipsis", ellipses / newlines, high=self.max_ellipsis_lines
        )
        lines = text.split("\n")
        short = sum(len(line) <= self.short_line for line in lines) / len(lines)
        yield Check("short lines", short, high=self.max_short_lines)
        # HojiChar keeps what is below its threshold, not at it.
        most = float(np.nextafter(self.max_repetition, 0))
        yield Check("repeated characters", repetition(text, self.ngram), high=most)


def repetition(text: str, n: int) -> float:
    """The share of the most frequent character n-grams (of BigScience's ROOTS)."""
    counts = character_ngrams(text, n)
    if not len(counts):
        return 0.0
    most = min(int(np.sqrt(len(counts))), int((counts > 1).sum()))
    top = np.sort(counts)[::-1][:most]
    return float(top.sum() / counts.sum())


def longest_run(text: str) -> int:
    """Length of the longest run of one character."""
    points = code_points(text)
    if not len(points):
        return 0
    starts = np.flatnonzero(np.concatenate([[True], points[1:] != points[:-1]]))
    return int(np.diff(starts, append=len(points)).max())
