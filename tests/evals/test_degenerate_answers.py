"""What answers without reading the question scores at chance on each bundled task."""

from __future__ import annotations

import math
from collections import Counter
from pydoc_data.topics import topics
from typing import Any

import pytest

from llm_jax.evals.tasks.catalog import Settings, bundled_names, load_tasks

pytest.importorskip("lm_eval")

SIGMAS = 2.6
"""Standard deviations of a guess that a strategy may be off by: 99%."""
STRATEGIES = ("first", "last", "longest", "shortest", "frequent", "constant")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    text = tmp_path_factory.mktemp("held") / "held.txt"
    text.write_text("\n\n".join(topics.values()), encoding="utf-8")
    return load_tasks(bundled_names(), Settings(texts=(str(text),))).tasks


def likings(strategy: str, choices: list[str], counts: Counter[str]) -> list[float]:
    """How much a strategy likes each choice: in place of log-probabilities."""
    order = range(len(choices))
    return {
        "first": [-float(place) for place in order],
        "last": [float(place) for place in order],
        "longest": [float(len(choice)) for choice in choices],
        "shortest": [-float(len(choice)) for choice in choices],
        "frequent": [float(counts[choice]) for choice in choices],
        "constant": [0.0] * len(choices),
    }[strategy]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", bundled_names())
def test_answers_without_the_question_are_guesses(
    tasks: dict[str, Any], name: str, strategy: str
) -> None:
    task, docs = tasks[name], [*tasks[name].task_docs]
    counts = Counter(choice for doc in docs for choice in doc["choices"])
    right = guessed = variance = 0.0
    for doc in docs:
        liked = likings(strategy, doc["choices"], counts)
        right += task.process_results(doc, [(one, False) for one in liked])["acc"]
        chance = 0.5 if name.startswith("pronouns") else 1 / len(doc["choices"])
        guessed, variance = guessed + chance, variance + chance * (1 - chance)
    assert abs(right - guessed) <= SIGMAS * math.sqrt(variance), (right, guessed, len(docs))


@pytest.mark.parametrize(("name", "yes"), [("truth_en", " Yes"), ("truth_ja", "はい")])
def test_yes_is_as_often_true_as_no(tasks: dict[str, Any], name: str, yes: str) -> None:
    asked = [doc for doc in tasks[name].task_docs if any(c.startswith(yes) for c in doc["choices"])]
    true = sum(doc["choices"][doc["gold"]].startswith(yes) for doc in asked)
    assert len(asked) > 50
    assert abs(true - len(asked) / 2) <= SIGMAS * math.sqrt(len(asked)) / 2
