"""What answers without reading the question scores at chance on each bundled task."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from pydoc_data.topics import topics
from typing import Any

import pytest

from llm_jax.evals.tasks.catalog import Settings, bundled_names, load_tasks

pytest.importorskip("lm_eval")

SIGMAS = 2.6
"""Standard deviations of a guess that a strategy may be off by: 99%."""
STRATEGIES = (
    "first",
    "last",
    "longest",
    "shortest",
    "most_bytes",
    "fewest_bytes",
    "frequent",
    "constant",
    "common",
    "rare",
    "least",
    "greatest",
    "repeats",
)
"""Ways to choose. `common` is a model of single characters that has read the task's own texts;
`repeats` likes what the context has said already."""
KNOWN = {
    # Descriptions of functions have letters of their names.
    ("stdlib_en", "repeats"),
    ("stdlib_ja", "repeats"),
    # Neighbouring days share digits.
    ("dates_en", "repeats"),
    # What a text says often, it says again.
    ("cloze", "frequent"),
}
"""Strategies that are better than a guess. None may be worse."""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("held")
    for number, text in enumerate(topics.values()):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    texts = tuple(str(path) for path in sorted(folder.iterdir()))
    return load_tasks(bundled_names(), Settings(texts=texts)).tasks


class Liking:
    """How much a strategy likes each choice of a question, in place of log-probabilities."""

    def __init__(self, docs: list[dict[str, Any]]) -> None:
        self.choices = Counter(choice for doc in docs for choice in doc["choices"])
        self.letters = Counter("".join(doc["context"] + "".join(doc["choices"]) for doc in docs))

    def __call__(self, strategy: str, doc: dict[str, Any]) -> list[float]:
        if strategy in ("least", "greatest"):
            order = sorted(doc["choices"], key=natural, reverse=strategy == "least")
            return [float(order.index(choice)) for choice in doc["choices"]]
        return [self.of(strategy, place, one, doc) for place, one in enumerate(doc["choices"])]

    def of(self, strategy: str, place: int, choice: str, doc: dict[str, Any]) -> float:
        commonness = sum(math.log(self.letters[letter]) for letter in choice) / len(choice)
        pairs = {a + b for a, b in itertools.pairwise(choice)}
        return {
            "first": -float(place),
            "last": float(place),
            "longest": float(len(choice)),
            "shortest": -float(len(choice)),
            "most_bytes": float(len(choice.encode())),
            "fewest_bytes": -float(len(choice.encode())),
            "frequent": float(self.choices[choice]),
            "constant": 0.0,
            "common": commonness,
            "rare": -commonness,
            "repeats": sum(pair in doc["context"] for pair in pairs) / max(len(pairs), 1),
        }[strategy]


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A text with its numbers in the order of their size."""
    parts = re.split(r"(\d+)", text)
    return [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts if p]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", bundled_names())
def test_answers_without_the_question_are_guesses(
    tasks: dict[str, Any], name: str, strategy: str
) -> None:
    task, docs = tasks[name], [*tasks[name].task_docs]
    liking = Liking(docs)
    right = guessed = variance = 0.0
    for doc in docs:
        liked = liking(strategy, doc)
        right += task.process_results(doc, [(one, False) for one in liked])["acc"]
        chance = 0.5 if name.startswith("pronouns") else 1 / len(doc["choices"])
        guessed, variance = guessed + chance, variance + chance * (1 - chance)
    sigmas = (right - guessed) / math.sqrt(variance)
    assert sigmas >= -SIGMAS, (right, guessed, len(docs))
    assert sigmas <= SIGMAS or (name, strategy) in KNOWN, (right, guessed, len(docs))


@pytest.mark.parametrize("name", [one for one in bundled_names() if "pronouns" not in one])
def test_no_letter_tells_the_right_answer(tasks: dict[str, Any], name: str) -> None:
    """Each letter weighs log(times in right choices / times expected), counted in the other half of
    the questions (the idea of Gururangan et al. 2018: a model of the answers alone)."""
    docs = [*tasks[name].task_docs]
    order = random.Random(0).sample(range(len(docs)), len(docs))
    right = guessed = variance = 0.0
    for learned, asked in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        weights = letter_weights([docs[place] for place in learned])
        for doc in (docs[place] for place in asked):
            sums = [sum(weights.get(letter, 0.0) for letter in one) for one in doc["choices"]]
            right += sums.index(max(sums)) == doc["gold"]
            chance = 1 / len(doc["choices"])
            guessed, variance = guessed + chance, variance + chance * (1 - chance)
    # Where each choice is right equally often, what is seen in one half is missing in the other.
    assert right - guessed <= SIGMAS * math.sqrt(variance), (right, guessed, len(docs))


def letter_weights(docs: list[dict[str, Any]]) -> dict[str, float]:
    right, expected = Counter[str](), Counter[str]()
    for doc in docs:
        right.update(doc["choices"][doc["gold"]])
        for letter, times in Counter("".join(doc["choices"])).items():
            expected[letter] += times / len(doc["choices"])
    return {letter: math.log((right[letter] + 1) / (expected[letter] + 1)) for letter in expected}


@pytest.mark.parametrize(("name", "yes"), [("truth_en", " Yes"), ("truth_ja", "はい")])
def test_yes_is_as_often_true_as_no(tasks: dict[str, Any], name: str, yes: str) -> None:
    asked = [doc for doc in tasks[name].task_docs if any(c.startswith(yes) for c in doc["choices"])]
    true = sum(doc["choices"][doc["gold"]].startswith(yes) for doc in asked)
    assert len(asked) > 50
    assert abs(true - len(asked) / 2) <= SIGMAS * math.sqrt(len(asked)) / 2
