"""Intervals of figures, what counts as better than chance, and the table that shows them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from llm_jax.commands.task_table import course_lines, text_lines, width
from llm_jax.evals.tasks.harness import _figures
from llm_jax.evals.tasks.results import Figure, TaskResult, TaskResults


def share(right: int, n: int, chance: float | None = 0.25) -> Figure:
    p = right / n
    return Figure(p, math.sqrt(p * (1 - p) / (n - 1)), True, chance, n)


def test_shares_have_the_interval_of_wilson() -> None:
    # scipy.stats.binomtest(8, 10).proportion_ci(method="wilson"), and of 0 and 10.
    for right, told in ((8, (0.490162, 0.943318)), (0, (0.0, 0.277533)), (10, (0.722467, 1.0))):
        assert share(right, 10).interval == pytest.approx(told, abs=1e-5)


def test_other_means_have_two_standard_errors() -> None:
    assert Figure(-3.0, 0.5, True, None, 40).interval == pytest.approx((-3.98, -2.02), abs=1e-3)
    assert Figure(0.5, 0.01, True, 0.4, 40).interval == pytest.approx((0.4804, 0.5196), abs=1e-3)
    assert Figure(0.5, None, True, 0.4, 1).interval is None


def test_above_chance_only_if_the_interval_excludes_it() -> None:
    assert share(50, 100).above_chance is True
    assert share(30, 100).above_chance is False
    assert share(0, 100).above_chance is False
    # Two of two are right: the interval begins at 0.34.
    assert share(2, 2, chance=0.5).above_chance is False
    assert Figure(0.6, 0.01, False, 0.75, 50).above_chance is True  # a Brier score
    assert Figure(0.9, 0.01, False, 0.75, 50).above_chance is False
    assert Figure(0.9, None, True, 0.25, 1).above_chance is None
    assert share(9, 10, chance=None).above_chance is None


def test_what_is_no_number_is_told_as_such() -> None:
    found = {"f1,none": {"a": 1.0}, "f1_stderr,none": "N/A", "acc,strict": np.float32(0.5), "n": 3}
    made = dict(_figures(found, {"acc": True}, {}, Counter({"acc,strict": 2}), 3))
    assert math.isnan(made["f1"].value) and made["f1"].report()["value"] is None
    assert (made["acc/strict"].value, made["acc/strict"].n, made["f1"].n) == (0.5, 2, 3)


def results() -> dict[str, Any]:
    def task(n: int, of: int, **metrics: Figure) -> TaskResult:
        return TaskResult(n, of, 2, "1.0", 3, 0, metrics)

    lost = Figure(math.nan, None, None, None, 4)
    return TaskResults(
        {
            "copying_en": task(
                100, 200, acc=share(50, 100), log_prob=Figure(-3, 0.5, True, None, 9)
            ),
            "reasoning_gym:a_task_with_a_long_name": task(4, 4, score=share(4, 4, None), odd=lost),
            "pronouns_ja": task(120, 120, lean_プログラマー=Figure(-0.0123, 0.1, None, None, 4)),
        }
    ).report()


def test_the_table_fits_a_terminal() -> None:
    lines = text_lines(results())
    assert all(width(line) <= 80 for line in lines)
    head, first, second, long, *_ = lines
    assert head.split() == ["task", "shots", "metric", "value", "±", "stderr", "chance", "n"]
    assert first.split() == ["copying_en", "2", "acc", "↑", "0.5", "±", "0.05", "0.25",
                             "100", "of", "200"]  # fmt: skip
    assert second.split() == ["log_prob", "↑", "-3", "±", "0.5", "9"]
    assert long == "reasoning_gym:a_task_with_a_long_name"
    assert head.index("metric") == first.index("acc") == second.index("log_prob")
    said = "\n".join(lines)
    assert "not a finite number" in said
    assert "copying_en, better than chance (the 95% interval excludes it): acc" in said
    assert said.count("better than chance") == 1  # no other task has a known level of chance
    assert "copying_en: 3 requests were longer" in said


def test_several_checkpoints_are_one_table() -> None:
    wilson = {"acc": 0.8, "acc_stderr": math.sqrt(0.8 * 0.2 / 9), "chance": 0.25, "n": 10.0}
    nats = {"log_prob": -3.0, "log_prob_stderr": 0.5, "n": 40.0, "log_prob_examples": 4.0}
    long = "reasoning_gym:a_task_with_a_long_name_of_its_own"
    checkpoints = [
        {"step": 2778, "scores": {"copying_en": wilson, long: nats}},
        {"step": 3704, "scores": {"copying_en": wilson | {"truncated": 3.0}, long: nats}},
    ]
    lines = course_lines(checkpoints, {"copying_en": "2.0", long: None})
    assert all(width(line) <= 80 for line in lines)
    head, first, second, name, third, fourth, *rest = lines
    assert head.split("  ")[0] == "task" and head.split()[-2:] == ["chance", "n"]
    assert first.split() == ["copying_en", "acc", "2,778", "0.8", "±", "0.13",
                             "0.49", "to", "0.943", "0.25", "10"]  # fmt: skip
    assert (
        second.split() == first.replace("copying_en acc", "").replace("2,778", "3,704").split()[2:]
    )
    assert name == long
    assert third.split() == ["log_prob", "2,778", "-3", "±", "0.5", "-3.98", "to", "-2.02", "4"]
    assert fourth.split()[0] == "3,704"
    said = "\n".join(rest)
    assert course_lines([], {"copying_en": "2.0"}) == []
    assert "versions: copying_en 2.0" in said and "copying_en: 3 requests were longer" in said


def test_what_json_has() -> None:
    report = results()["tasks"]
    acc = report["copying_en"]["metrics"]["acc"]
    assert acc["interval"] == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert (acc["above_chance"], acc["n"]) == (True, 100)
    odd = report["reasoning_gym:a_task_with_a_long_name"]["metrics"]["odd"]
    assert odd == dict.fromkeys(odd) | {"n": 4}
