"""What the steps did: counts by source and language, histograms, examples near the thresholds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.histogram import bin_of
from llm_jax.data.permutation import mix
from llm_jax.data.same_text import common_prefix

EXAMPLES = 20
"""Of each step: kept ones, dropped ones, and changed ones."""
EXCERPT = 400
"""Characters of an example."""
CONTEXT = 60
"""Characters on each side of a change."""
Amount = tuple[int, int, float]
"""Documents, UTF-8 bytes, tokens."""


class Amounts:
    """Documents, bytes and tokens by source and language."""

    def __init__(self, held: dict[str, list[float]] | None = None) -> None:
        self.held: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0], held or {})

    def add(self, draft: Draft, amount: Amount) -> None:
        self.add_to(f"{draft.source}\t{draft.language}", amount)

    def add_to(self, key: str, amount: Iterable[float]) -> None:
        self.held[key] = [a + b for a, b in zip(self.held[key], amount, strict=True)]


class StepTally:
    """What one step did.

    Attributes:
      dropped: documents that were dropped.
      trimmed: documents that were changed, with the bytes and tokens that they lost.
      reasons: name of a check → how many documents it dropped.
      edits: what was changed → how many times.
      bins: name of a check → its bounds, and bin → [documents that passed it, dropped].
      examples: "kept", "dropped" and "changed" → examples, the most telling first.
    """

    def __init__(self) -> None:
        self.dropped, self.trimmed = Amounts(), Amounts()
        self.reasons: Counter[str] = Counter()
        self.edits: Counter[str] = Counter()
        self.bins: dict[str, dict[str, Any]] = {}
        self.examples: dict[str, list[dict[str, Any]]] = {}

    def see(self, check: Check) -> None:
        """Counts a check's value."""
        held = self.bins.get(check.name)
        if held is None:
            held = {"low": check.low, "high": check.high, "counts": {}}
            self.bins[check.name] = held
        counts = held["counts"].setdefault(str(bin_of(check.value, check.low, check.high)), [0, 0])
        counts[0 if check.holds else 1] += 1

    def show(self, group: str, rank: float, draft: Draft, shown: dict[str, Any]) -> None:
        """Offers an example; those of lowest `rank` stay."""
        held = self.examples.setdefault(group, [])
        if len(held) == EXAMPLES and rank >= held[-1]["rank"]:
            return
        place = {"source": draft.source, "file": draft.file, "line": draft.line}
        known = {"number": draft.number, "language": draft.language, "notes": dict(draft.notes)}
        held.append({"rank": rank, **known, **place, **shown})
        held.sort(key=_order)
        del held[EXAMPLES:]

    def to_dict(self) -> dict[str, Any]:
        return {
            "dropped": dict(self.dropped.held),
            "trimmed": dict(self.trimmed.held),
            "reasons": dict(self.reasons),
            "edits": dict(self.edits),
            "bins": self.bins,
            "examples": self.examples,
        }

    def merge(self, other: dict[str, Any]) -> None:
        """Adds what `to_dict` of another tally of the same step returned."""
        for mine, theirs in ((self.dropped, "dropped"), (self.trimmed, "trimmed")):
            for key, amount in other[theirs].items():
                mine.add_to(key, amount)
        self.reasons.update(other["reasons"])
        self.edits.update(other["edits"])
        for name, held in other["bins"].items():
            into = self.bins.setdefault(name, {**held, "counts": {}})["counts"]
            for number, (kept, dropped) in held["counts"].items():
                have = into.get(number, (0, 0))
                into[number] = [have[0] + kept, have[1] + dropped]
        for group, examples in other["examples"].items():
            held = self.examples.setdefault(group, [])
            self.examples[group] = sorted([*held, *examples], key=_order)[:EXAMPLES]


def _order(example: dict[str, Any]) -> tuple[float, int]:
    return example["rank"], example["number"]


class Tally:
    """What all steps of a recipe did.

    Attributes:
      arrived, left: what came in, and what came out.
      steps: by the step's name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.arrived, self.left = Amounts(), Amounts()
        self.steps = {name: StepTally() for name in names}

    def to_dict(self) -> dict[str, Any]:
        return {
            "arrived": dict(self.arrived.held),
            "left": dict(self.left.held),
            "steps": {name: step.to_dict() for name, step in self.steps.items()},
        }

    def merge(self, other: dict[str, Any]) -> None:
        """Adds what `to_dict` of another tally of the same recipe returned."""
        for mine, theirs in ((self.arrived, "arrived"), (self.left, "left")):
            for key, amount in other[theirs].items():
                mine.add_to(key, amount)
        for name, step in other["steps"].items():
            self.steps[name].merge(step)


def shown_check(check: Check, text: str) -> dict[str, Any]:
    """An example of a check: its number, its bounds, and the beginning of the text."""
    return {
        "check": check.name,
        "value": check.value,
        "low": check.low,
        "high": check.high,
        "text": text[:EXCERPT],
    }


def shown_change(before: str, after: str, edits: Counter[str]) -> dict[str, Any]:
    """An example of a change: the text around the first difference, before and after."""
    start = common_prefix(before, after)
    tail = common_prefix(before[start:][::-1], after[start:][::-1])
    first = max(start - CONTEXT, 0)
    return {
        "edits": dict(edits),
        "was": before[first : min(len(before) - tail, start + EXCERPT) + CONTEXT],
        "became": after[first : min(len(after) - tail, start + EXCERPT) + CONTEXT],
    }


def drawn(number: int) -> float:
    """A rank of document `number` that is as good as random, from 0 to 1."""
    return float(mix(np.array([number], np.uint64))[0]) / 2.0**64
