"""The rules of C4 (Raffel et al. 2020, section 2.2) and of mC4 (Xue et al. 2021), as they were run
for FineWeb."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.step import Checks, Step
from llm_jax.data.curate.words import count_sentences

CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
ENDS = (".", "?", "!", '"', "'")
POLICIES = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
    "use cookies",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class C4(Step):
    """Takes lines away that are no sentences, and drops pages with too few of them.

    Attributes:
      terminal_punctuation: take lines away that do not end a sentence. FineWeb did not.
    """

    kind: Literal["c4"] = "c4"
    terminal_punctuation: bool = True
    min_sentences: int = 5
    min_words_per_line: int = 3
    max_word_length: int = 1000

    def check(self, draft: Draft) -> Checks:
        kept: list[str] = []
        sentences = 0
        for line in map(str.strip, draft.text.splitlines()):
            words = line.split()
            if not words:
                continue
            if any(len(word) > self.max_word_length for word in words):
                draft.edits["c4: line with a word too long"] += 1
                continue
            line = CITATION.sub("", line)
            if self.terminal_punctuation and (not line.endswith(ENDS) or line.endswith("...")):
                draft.edits["c4: line without an end"] += 1
                continue
            if len(words) < self.min_words_per_line:
                draft.edits["c4: line of few words"] += 1
                continue
            lower = line.lower()
            if "lorem ipsum" in lower:
                yield Check("pages with lorem ipsum", 1, high=0)
            if "javascript" in lower:
                draft.edits["c4: line about javascript"] += 1
                continue
            if "{" in line:
                yield Check("pages with a curly bracket", 1, high=0)
            if any(policy in lower for policy in POLICIES):
                draft.edits["c4: line about policies"] += 1
                continue
            sentences += count_sentences(line)
            kept.append(line)
        yield Check("sentences", sentences, self.min_sentences)
        draft.rewrite("\n".join(kept).strip())


@dataclass(frozen=True, kw_only=True)
class C4Paragraphs(Step):
    """mC4: a page has a few long lines."""

    kind: Literal["c4_paragraphs"] = "c4_paragraphs"
    min_paragraphs: int = 3
    min_characters: int = 200

    def check(self, draft: Draft) -> Checks:
        lengths = map(len, draft.text.split("\n"))
        long = sum(length >= self.min_characters for length in lengths)
        yield Check(f"lines of {self.min_characters} characters", long, self.min_paragraphs)
