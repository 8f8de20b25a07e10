"""Paragraphs that occur in several documents, such as menus, notices and licence headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.hashing import hash_of
from llm_jax.data.curate.step import Checks, JointStep


@dataclass(frozen=True, kw_only=True)
class RepeatedParagraphs(JointStep):
    """Takes away all but the first of equal paragraphs, within and across documents and sources.

    A paragraph is a line; white space at its ends makes no difference (Wenzek et al. 2020, CCNet,
    section 3.1, which also compares paragraphs by hashes).

    Attributes:
      min_bytes: shorter paragraphs stay.
      max_removed: documents that lose more than this share of their characters are dropped.
    """

    kind: Literal["repeated_paragraphs"] = "repeated_paragraphs"
    min_bytes: int = 100
    max_removed: float = 0.5

    columns = 1

    def rows(self, draft: Draft) -> np.ndarray:
        hashes = [hash_of(line.strip()) for line in self._long(draft.text)]
        return np.array(hashes, np.uint64).reshape(-1, 1)

    def _long(self, text: str) -> list[str]:
        return [line for line in text.split("\n") if self._is_long(line)]

    def _is_long(self, line: str) -> bool:
        return 4 * len(line) >= self.min_bytes and len(line.strip().encode()) >= self.min_bytes

    def resolve(self, tables: list[np.ndarray], numbers: np.ndarray) -> np.ndarray:
        keys = np.concatenate([table[:, 0] for table in tables])
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        first = order[np.repeat(starts, np.diff(starts, append=len(order)))]
        answers = np.empty((len(keys), 2), np.int64)
        answers[order, 0] = numbers[first]
        answers[order, 1] = first != order
        return answers

    def check_answers(self, draft: Draft, answers: np.ndarray) -> Checks:
        again = iter(answers[:, 1].tolist())
        kept, removed = [], 0
        lines = draft.text.split("\n")
        for line in lines:
            if self._is_long(line) and next(again):
                removed += len(line)
            else:
                kept.append(line)
        share = removed / (len(draft.text) or 1)
        yield Check("characters in repeated paragraphs", share, high=self.max_removed)
        if removed:
            draft.edits["repeated_paragraphs: paragraph"] += len(lines) - len(kept)
            draft.rewrite("\n".join(kept))
