"""Applies steps to a document, and counts what they did."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.step import Checks
from llm_jax.data.curate.tally import StepTally, Tally, drawn, shown_change, shown_check

Applied = Callable[[Draft], Checks]
"""A step as it is applied to a document."""
CountTokens = Callable[[str], int]


class Applier:
    """Applies named steps in order.

    Args:
      steps: name of each step in `tally`, and the step.
      count_tokens: of a text; None if tokens are not counted.
    """

    def __init__(
        self,
        steps: Sequence[tuple[str, Applied]],
        tally: Tally,
        count_tokens: CountTokens | None = None,
    ) -> None:
        self._steps = steps
        self._tally = tally
        self._count_tokens = count_tokens

    def arrive(self, draft: Draft) -> None:
        """Counts the document as one that came in."""
        if self._count_tokens:
            draft.notes["tokens"] = self._count_tokens(draft.text)
        self._arrived = draft.num_bytes, draft.notes.get("tokens", 0)

    def keeps(self, draft: Draft, *, is_new: bool, is_last: bool) -> bool:
        """Whether the steps keep the document, which they may change.

        What a step does is counted under the language that the document has at the end.

        Args:
          is_new: it comes from a source, not from an earlier pass.
          is_last: no pass follows.
        """
        if is_new:
            self.arrive(draft)
        done: list[tuple[str, bool, int, float]] = []
        kept = True
        for name, step in self._steps:
            before = draft.num_bytes, draft.notes.get("tokens", 0)
            kept = _apply(step, draft, self._tally.steps[name])
            if kept and draft.num_bytes != before[0]:
                # Tokens of a changed text go by its bytes.
                share = draft.num_bytes / before[0]
                if "tokens" in draft.notes:
                    draft.notes["tokens"] = before[1] * share
            lost = (before[0] - draft.num_bytes, before[1] - draft.notes.get("tokens", 0))
            done.append((name, kept, *(lost if kept else before)))
            if not kept:
                break
        self._count(draft, done, is_new=is_new, is_out=is_last and kept)
        return kept

    def _count(
        self, draft: Draft, done: list[tuple[str, bool, int, float]], *, is_new: bool, is_out: bool
    ) -> None:
        if is_new:
            self._tally.arrived.add(draft, (1, *self._arrived))
        for name, kept, size, tokens in done:
            step = self._tally.steps[name]
            if not kept:
                step.dropped.add(draft, (1, size, tokens))
            elif size:
                step.trimmed.add(draft, (1, size, tokens))
        if is_out:
            self._tally.left.add(draft, (1, draft.num_bytes, draft.notes.get("tokens", 0)))


def _apply(step: Applied, draft: Draft, tally: StepTally) -> bool:
    """Whether one step keeps the document."""
    before, edits_before = draft.text, draft.edits.copy()
    nearest: tuple[float, Check] | None = None
    for check in step(draft):
        tally.see(check)
        if not check.holds:
            tally.reasons[check.name] += 1
            tally.show("dropped", check.margin, draft, shown_check(check, before))
            draft.edits = edits_before
            return False
        if nearest is None or check.margin < nearest[0]:
            nearest = check.margin, check
    if nearest and math.isfinite(nearest[0]):
        tally.show("kept", nearest[0], draft, shown_check(nearest[1], before))
    edits = draft.edits - edits_before
    if edits:
        tally.edits.update(edits)
        if draft.text != before:
            _show_change(tally, draft, before, edits)
    return True


def _show_change(tally: StepTally, draft: Draft, before: str, edits: Any) -> None:
    rank = drawn(draft.number)
    tally.show("changed", rank, draft, shown_change(before, draft.text, edits))
