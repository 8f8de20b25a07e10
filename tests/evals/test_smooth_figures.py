"""Figures that see half of the way to an answer, on examples that can be counted by hand."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from llm_jax.evals.tasks.smooth import edit_distance, first_answers, mean, of_choices, of_text


def choice(log_probs: list[float], target: Any, answers: tuple[str, ...]) -> dict[str, Any]:
    return {
        "doc_id": 0,
        "target": target,
        "arguments": [("Q:", answer) for answer in answers],
        "filtered_resps": [(one, False) for one in log_probs],
    }


def test_the_right_answer_among_choices() -> None:
    log_probs = [math.log(0.1), math.log(0.3)]
    for target in (1, "da", " da", "1"):
        found = of_choices(choice(log_probs, target, (" nein", " da")))
        assert found["answer_nats"] == pytest.approx(-math.log(0.3))
        assert found["answer_nats_per_byte"] == pytest.approx(-math.log(0.3) / 3)
        assert found["brier"] == pytest.approx(2 * 0.25**2)
    assert of_choices(choice(log_probs, "other", (" nein", " da"))) == {}


def test_bytes_are_counted_in_utf_8() -> None:
    found = of_choices(choice([-6.0, -7.0], 0, ("三分", "二分")))
    assert found["answer_nats_per_byte"] == pytest.approx(1.0)


def test_one_scored_answer_has_no_brier_score() -> None:
    found = of_choices(choice([-2.0], "cat", (" cat",)))
    assert found == {"answer_nats": 2.0, "answer_nats_per_byte": 0.5}


def test_choices_without_their_question_do_not_count() -> None:
    sample = choice([-1.0, -2.0], 0, (" a", " b"))
    sample["arguments"] += [("", " a"), ("", " b")]
    sample["filtered_resps"] += [(-0.1, False), (-0.1, False)]
    assert of_choices(sample) == of_choices(choice([-1.0, -2.0], 0, (" a", " b")))


def test_a_generated_answer() -> None:
    sample = {
        "doc_id": 3,
        "target": ["kitten", "sitting"],
        "arguments": [("Q:", {"until": ["\n"]})],
        "filtered_resps": [" sitten "],
    }
    assert of_choices(sample) == {}
    assert of_text(sample, ["kitten", "sitting"]) == {"edit_distance": pytest.approx(1 / 6)}
    assert first_answers([sample, sample | {"filter": "other"}]) == [sample]


def test_edit_distance_is_that_of_its_definition() -> None:
    def defined(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        changed = defined(a[:-1], b[:-1]) + (a[-1] != b[-1])
        return min(changed, defined(a[:-1], b) + 1, defined(a, b[:-1]) + 1)

    draw = random.Random(0)
    for _ in range(60):
        a, b = ("".join(draw.choices("abc", k=draw.randrange(6))) for _ in range(2))
        longer = max(len(a), len(b), 1)
        assert edit_distance(a, b) == pytest.approx(defined(a, b) / longer)


def test_a_mean_and_its_standard_error() -> None:
    middle, error = mean([1.0, 2.0, 4.0, 5.0])
    assert middle == 3.0 and error == pytest.approx(math.sqrt(10 / 3 / 4))
    assert math.isnan(mean([1.0])[1])
