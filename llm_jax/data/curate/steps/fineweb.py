"""The rules that FineWeb added (Penedo et al. 2024, arXiv:2406.17557, section 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.marks import TERMINAL
from llm_jax.data.curate.step import Checks, Step
from llm_jax.data.curate.steps.gopher import repeated


@dataclass(frozen=True, kw_only=True)
class FineWeb(Step):
    """Lists, menus and repeated lines. Empty lines do not count.

    Attributes:
      max_duplicate_characters: of lines that occurred before, as a share of the text without its
        newlines.
    """

    kind: Literal["fineweb"] = "fineweb"
    min_ended_lines: float = 0.12
    max_short_lines: float = 0.67
    short_line: int = 30
    max_duplicate_characters: float = 0.01
    max_newlines_per_word: float = 0.3

    def check(self, draft: Draft) -> Checks:
        lines = [line for line in draft.text.split("\n") if line.strip()]
        yield Check("lines with text", len(lines), 1)
        ended = sum(line[-1] in TERMINAL for line in lines)
        yield Check("lines that end a sentence", ended / len(lines), self.min_ended_lines)
        short = sum(len(line) <= self.short_line for line in lines)
        yield Check("short lines", short / len(lines), high=self.max_short_lines)
        newlines = draft.text.count("\n")
        share = repeated(lines)[1] / (len(draft.text) - newlines)
        yield Check("characters of duplicate lines", share, high=self.max_duplicate_characters)
        per_word = newlines / len(draft.words)
        yield Check("newlines per word", per_word, high=self.max_newlines_per_word)
