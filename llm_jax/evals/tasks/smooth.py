"""Figures of an example that also see half of the way to its answer.

Accuracy and exact match are all or nothing for each example. Beside them stand the log-probability
of the right answer, the Brier score over the choices (Brier 1950), and the edit distance of a
generated answer (Levenshtein 1966); see Schaeffer et al. 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

NATS, NATS_PER_BYTE = "answer_nats", "answer_nats_per_byte"
"""-log p of the right answer."""
BRIER = "brier"
"""Σ(p − y)² over the choices, whose probabilities are scaled to a sum of 1; y is 1 for the right
one."""
EDIT_DISTANCE = "edit_distance"
"""Between the generated answer and the nearest right one, over the length of the longer: 0 to 1."""
LONGEST = 500
"""Characters of an answer that the edit distance looks at."""
Sample = dict[str, Any]
"""One example as lm-eval keeps it: `doc_id`, `filter`, `arguments` and `filtered_resps` of its
requests, `target`."""


def first_answers(samples: Iterable[Sample]) -> list[Sample]:
    """Each example once: a task may read its answers in several ways."""
    first: dict[Any, Sample] = {}
    for sample in samples:
        first.setdefault(sample["doc_id"], sample)
    return list(first.values())


def of_choices(sample: Sample) -> dict[str, float]:
    """The figures of an example whose answers were scored; empty for a generated one."""
    asked, answers = sample["arguments"], sample["filtered_resps"]
    scored = [
        (context, continuation, answer[0])
        for (context, continuation, *_), answer in zip(asked, answers, strict=True)
        if isinstance(answer, tuple | list) and len(answer) == 2
    ] if all(len(one) > 1 and isinstance(one[1], str) for one in asked) else []  # fmt: skip
    if scored and scored[0][0]:
        # Some tasks also score each choice without its context.
        scored = [one for one in scored if one[0]]
    if not scored:
        return {}
    right = 0 if len(scored) == 1 else _right(sample["target"], [one[1] for one in scored])
    if right is None:
        return {}
    log_probs = np.array([one[2] for one in scored], np.float64)
    found = of_answer(float(log_probs[right]), scored[right][1])
    if len(scored) > 1:
        p = np.exp(log_probs - log_probs.max())
        p /= p.sum()
        found[BRIER] = float(np.sum((p - np.eye(len(p))[right]) ** 2))
    return found


def of_answer(log_prob: float, answer: str) -> dict[str, float]:
    """The figures of a right answer with this log-probability."""
    size = len(answer.encode())
    return {NATS: -log_prob} | ({NATS_PER_BYTE: -log_prob / size} if size else {})


def of_text(sample: Sample, rights: list[str]) -> dict[str, float]:
    """The figures of a generated answer. Space around answers does not count."""
    answer = sample["filtered_resps"][0].strip()
    return {EDIT_DISTANCE: min(edit_distance(answer, one.strip()) for one in rights)}


def rights_of(sample: Sample, choices: list[str] | None) -> list[str]:
    """The right answers of an example as its task writes them, without those that are empty.

    Args:
      choices: of the example, which its `target` is a number of; None: it is a text.
    """
    target = sample["target"]
    each = target if isinstance(target, list | tuple) else [target]
    if choices is not None:
        each = [choices[int(one)] for one in each if _is_place(one, choices)]
    return [text for text in map(str, each) if text.strip()]


def edit_distance(a: str, b: str) -> float:
    """Insertions, deletions and changes of characters from `a` to `b`, over the longer length. Of
    either, the first `LONGEST` characters count."""
    a, b = a[:LONGEST], b[:LONGEST]
    before = np.arange(len(b) + 1)
    letters = np.array([ord(letter) for letter in b])
    for i, letter in enumerate(a, 1):
        change = before[:-1] + (letters != ord(letter))
        now = np.concatenate([[i], np.minimum(change, before[1:] + 1)])
        # An insertion follows from its left neighbour: the least of now[k] + (j − k).
        places = np.arange(len(b) + 1)
        before = np.minimum.accumulate(now - places) + places
    return float(before[-1]) / max(len(a), len(b), 1)


def mean(values: list[float]) -> tuple[float, float]:
    """The mean, and its standard error (nan for one value)."""
    n = len(values)
    middle = math.fsum(values) / n
    if n == 1:
        return middle, math.nan
    return middle, math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (n - 1) / n)


def _is_place(target: Any, choices: list[str]) -> bool:
    return isinstance(target, int) and 0 <= target < len(choices)


def _right(target: Any, continuations: list[str]) -> int | None:
    """Which choice is right; None if the task says it in another way."""
    if isinstance(target, bool):
        target = int(target)
    if isinstance(target, int | np.integer):
        return int(target) if 0 <= target < len(continuations) else None
    if isinstance(target, str):
        told = [one.strip() for one in continuations]
        if target.strip() in told:
            return told.index(target.strip())
        if target.strip().isdigit() and int(target) < len(continuations):
            return int(target)
    return None
