"""What a guess scores on a task."""

from __future__ import annotations

from typing import Any

CHANCE = ("acc", "acc_norm", "acc_bytes", "prob")
"""Figures of a multiple choice whose chance level is one in the number of choices."""


def chances(task: Any) -> dict[str, float]:
    """Figure → its value for a guess, over the examples that were asked.

    A task's file may say so (`metadata: {chance: {NAME: value}}`). For a multiple choice it follows
    from the number of choices.
    """
    if task is None:
        return {}
    said = (task.config.metadata or {}).get("chance", {})
    if task.OUTPUT_TYPE != "multiple_choice" or not task.instances:
        return dict(said)
    choices = [
        len(task.doc_to_choice(doc)) for doc in {i.doc_id: i.doc for i in task.instances}.values()
    ]
    guess = sum(1 / count for count in choices) / len(choices)
    brier = {"brier": sum(1 - 1 / count for count in choices) / len(choices)}
    return dict.fromkeys(CHANCE, guess) | brier | dict(said)
