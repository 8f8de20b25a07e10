"""What a guess scores on a task, and whether its questions can be answered at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llm_jax.config import UserError

CHANCE = ("acc", "acc_norm", "acc_bytes", "prob")
"""Figures of a multiple choice whose chance level is one in the number of choices."""


class Choices(NamedTuple):
    """How many choices a question has, and how many of them are right."""

    all: int
    right: int


def choices_of(task: Any, limit: int | None) -> list[Choices]:
    """The choices of each question that is asked; empty if the task is not a multiple choice.

    Args:
      limit: most questions, its first; None: all.

    Raises:
      UserError: the choices or the right answer of a question are not what lm-eval takes them for,
        or no question has a right answer.
    """
    if task.OUTPUT_TYPE != "multiple_choice" or task.config.doc_to_choice is None:
        return []
    docs = task.doc_iterator(rank=0, limit=limit, world_size=1)
    found = [_choices(task, f"Question {place + 1:,} of task", doc) for place, doc in docs]
    if unlabelled(found) == len(found):
        raise UserError(
            f"No question of task {task.task_name!r} has its right answer among its choices: "
            "doc_to_target must be one of doc_to_choice, letter for letter, or its number from 0."
        )
    return found


def unlabelled(asked: Sequence[Choices]) -> int:
    """Questions of which no choice is the right one: they can only be wrong."""
    return sum(not one.right for one in asked)


def chances(task: Any, asked: Sequence[Choices]) -> dict[str, float]:
    """Figure → its value for a guess, over the questions that were asked.

    A task's file may say so (`metadata: {chance: {NAME: value}}`). For a multiple choice it follows
    from the number of choices, and of those that are right.
    """
    said = (task.config.metadata or {}).get("chance", {})
    if not asked:
        return dict(said)
    guess = sum(max(one.right, 1) / one.all for one in asked) / len(asked)
    brier = {"brier": sum(1 - 1 / one.all for one in asked) / len(asked)}
    return dict.fromkeys(CHANCE, guess) | brier | dict(said)


def _choices(task: Any, which: str, doc: Any) -> Choices:
    choices = task.doc_to_choice(doc)
    if not isinstance(choices, list) or not choices:
        raise UserError(
            f"{which} {task.task_name!r} has the choices {choices!r}: doc_to_choice must give a "
            "list of texts."
        )
    if task.config.process_results is not None:  # it reads the target
        return Choices(len(choices), 1)
    # Where the choices are parts of the question, the text says which is right.
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    several = isinstance(target, list)
    if not all(isinstance(one, int | str) for one in (target if several else [target])):
        raise UserError(
            f"{which} {task.task_name!r} has the right answer {target!r}: doc_to_target must be "
            "one of doc_to_choice, letter for letter, or its number from 0."
        )
    # Whether a task has several right answers is told by its first example.
    each = target if several and task.multiple_target else [] if several else [target]
    places = (choices.index(one) if one in choices else one for one in each)
    right = sum(isinstance(one, int) and 0 <= one < len(choices) for one in places)
    return Choices(len(choices), right)
