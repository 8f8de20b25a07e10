"""What a guess scores on a task, and whether its questions can be answered at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CHANCE = ("acc", "acc_norm", "acc_bytes", "prob")
"""Figures of a multiple choice whose chance level is one in the number of choices."""


def chances(task: Any) -> dict[str, float]:
    """Figure → its value for a guess, over the examples that were asked.

    A task's file may say so (`metadata: {chance: {NAME: value}}`). For a multiple choice it follows
    from the number of choices, and of those that are right.
    """
    if task is None:
        return {}
    said = (task.config.metadata or {}).get("chance", {})
    asked = [(len(choices), max(len(rights), 1)) for choices, rights in _asked(task)]
    if not asked:
        return dict(said)
    guess = sum(right / count for count, right in asked) / len(asked)
    brier = {"brier": sum(1 - 1 / count for count, _ in asked) / len(asked)}
    return dict.fromkeys(CHANCE, guess) | brier | dict(said)


def unlabelled(task: Any) -> int:
    """Examples that were asked and of which no choice is the right one: they can only be wrong."""
    if task is None or task.config.process_results is not None:  # which reads the target itself
        return 0
    return sum(not rights for _, rights in _asked(task))


def _asked(task: Any) -> Iterator[tuple[list[str], list[int]]]:
    """Choices of each example that was asked, and which of them are right; of a task that is not
    a multiple choice none."""
    if task.OUTPUT_TYPE != "multiple_choice" or task.config.doc_to_choice is None:
        return
    for doc in {one.doc_id: one.doc for one in task.instances or ()}.values():
        choices = task.doc_to_choice(doc)
        # Where the choices are parts of the question, the text says which is right.
        target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        several = isinstance(target, list)
        # Whether a task has several right answers is told by its first example.
        each = target if several and task.multiple_target else [] if several else [target]
        places = (choices.index(one) if one in choices else one for one in each)
        yield choices, [p for p in places if isinstance(p, int) and 0 <= p < len(choices)]
