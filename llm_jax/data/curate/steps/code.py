"""Rules for source code (RedPajama's, as StarCoder and llm-jp-corpus v1 use them)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.step import Checks, Step


@dataclass(frozen=True, kw_only=True)
class Code(Step):
    """Minified, generated and data files: long lines, few letters.

    Line ends do not count for length; letters and digits are a share of all characters.
    """

    kind: Literal["code"] = "code"
    max_line: int = 1000
    max_mean_line: float = 100.0
    min_alphanumeric: float = 0.25

    def check(self, draft: Draft) -> Checks:
        lengths = [len(line) for line in draft.text.splitlines()] or [0]
        yield Check("longest line", max(lengths), high=self.max_line)
        yield Check("mean line", sum(lengths) / len(lengths), high=self.max_mean_line)
        alphanumeric = sum(map(str.isalnum, draft.text)) / (len(draft.text) or 1)
        yield Check("letters and digits", alphanumeric, self.min_alphanumeric)
