"""What all bundled tasks share: examples with choices, drawn by seeded code, and their scores."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TEST, SHOTS = 200, 20
"""Examples of a generated task, and solved examples to draw from."""
TRIES = 50
"""Draws for each example that is wanted; a task with few different ones has fewer examples."""
Question = dict[str, Any]
"""`context`, `choices` (texts that may follow it) and `gold` (number of the right one)."""
Make = Callable[[random.Random], Question]
Answers = Sequence[tuple[float, bool]]
"""Log-probability of each choice, and whether the model would write it."""


def question(
    draw: random.Random, context: str, right: str, wrong: Sequence[str], **more: Any
) -> Question:
    """A question whose choices are in random order."""
    choices = [right, *wrong]
    draw.shuffle(choices)
    return {"context": context, "choices": choices, "gold": choices.index(right), **more}


def drawn(name: str, make: Make | Sequence[Make], count: int = TEST, shots: int = SHOTS) -> Any:
    """Different questions of `make`, the same ones at each call. Returns a `DatasetDict`.

    Several makers have one question each in turn. With makers in pairs, in which one answer is
    right as often as the other, a model that likes one of them whatever is asked is no better and
    no worse than a guess; `count` is then a multiple of their number.

    Args:
      name: of the task: what the generator is seeded with.
    """
    makers = [make] if callable(make) else [*make]
    draw = random.Random(name)
    found: dict[tuple[str, str], Question] = {}
    for number in range(count + shots):
        for _ in range(TRIES):
            one = makers[number % len(makers)](draw)
            if (key := (one["context"], one["choices"][one["gold"]])) not in found:
                found[key] = one
                break
        else:
            break
    made = dealt(name, [*found.values()])
    spare = min(shots, len(made) // 5)
    return splits(made[spare:], made[:spare])


def splits(test: Sequence[Question], shots: Sequence[Question] = ()) -> Any:
    """The dataset of these examples; `shots` are the solved ones.

    Without them, a task's file has `fewshot_split: test`: others of the same split are solved ones.
    """
    import datasets

    made = {"test": datasets.Dataset.from_list(list(test))}
    if shots:
        made["shots"] = datasets.Dataset.from_list(list(shots))
    return datasets.DatasetDict(made)


def dealt(name: str, questions: Sequence[Question]) -> list[Question]:
    """The same questions with the right choice equally often at each place, in random order: ties
    go to the first choice, and a guess there must score at chance."""
    draw = random.Random(name)
    made, places = [], dict[int, list[int]]()
    for one in questions:
        size = len(one["choices"])
        if not places.get(size):
            places[size] = draw.sample(range(size), size)
        gold, choices = places[size].pop(), list(one["choices"])
        choices.insert(gold, choices.pop(one["gold"]))
        made.append(one | {"choices": choices, "gold": gold})
    return made


def shuffled(name: str, questions: Sequence[Question]) -> list[Question]:
    """The same questions in an order that only depends on the name."""
    made = list(questions)
    random.Random(name).shuffle(made)
    return made


def probabilities(answers: Answers) -> np.ndarray:
    """Of each choice, if one of them is right, (n,) float64."""
    log_probs = np.array([log_prob for log_prob, _ in answers])
    weights = np.exp(log_probs - log_probs.max())
    return weights / weights.sum()


def choice_figures(doc: Question, answers: Answers) -> dict[str, float]:
    """The figures of one question: `acc`, `acc_norm` (by log-probability per character, as in
    lm-eval) and `exact_match` jump, the others are continuous."""
    gold = doc["gold"]
    p = probabilities(answers)
    each = [answer[0] / len(choice) for answer, choice in zip(answers, doc["choices"], strict=True)]
    right = np.arange(len(p)) == gold
    return {
        "acc": float(np.argmax([log_prob for log_prob, _ in answers]) == gold),
        "acc_norm": float(np.argmax(each) == gold),
        "exact_match": float(answers[gold][1]),
        "prob": float(p[gold]),
        "brier": float(((p - right) ** 2).sum()),
        "log_prob": float(answers[gold][0]),
    }
