"""Versions of tasks: each has one, and scores of two versions are never put beside each other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from task_run import random_run

from llm_jax.evals.tasks.catalog import Settings, bundled_names, load_tasks, version_of
from llm_jax.evals.tasks.course import Checkpoints
from llm_jax.language_model import load_model
from llm_jax.runs.scores import Scores, keep_scores, kept_scores, of_last_version, score_curves

pytest.importorskip("lm_eval")

QUESTIONS: dict[str, tuple[str, str]] = {
    "arithmetic_en": ("3.0", "409f3783"),
    "arithmetic_ja": ("3.0", "4305d61f"),
    "copying_en": ("2.0", "ee39906a"),
    "copying_ja": ("2.0", "52539733"),
    "counters_ja": ("4.0", "707d1109"),
    "dates_en": ("3.0", "e9ce5960"),
    "dates_ja": ("3.0", "be4856ec"),
    "grammar_en": ("4.0", "230e9642"),
    "grammar_ja": ("4.0", "e8729ffa"),
    "needle_en": ("3.0", "80d5830d"),
    "needle_ja": ("3.0", "1ac160a2"),
    "pronouns_en": ("2.0", "457a8891"),
    "pronouns_ja": ("2.0", "25c71225"),
    "readings_en": ("4.0", "fdfc9cd7"),
    "truth_en": ("3.0", "6c1729ac"),
    "truth_ja": ("3.0", "d18a0f28"),
}
"""Task: its version, and a digest of its questions. Where a digest differs, the questions have
changed: raise the version in the task's file too."""
PYTHON = f"+python{sys.version_info.major}.{sys.version_info.minor}"
OWN = "task: {name}\ndataset_path: json\nmetadata: {{version: {version}}}\n"


def test_questions_do_not_change_without_their_version() -> None:
    names = [one for one in bundled_names() if not one.startswith(("stdlib", "cloze"))]
    found = {}
    for name, task in load_tasks(names, Settings()).tasks.items():
        docs = json.dumps([dict(doc) for doc in task.task_docs], sort_keys=True)
        digest = hashlib.sha256(docs.encode()).hexdigest()[:8]
        found[name] = str(version_of(name, Settings())), digest
    assert found == QUESTIONS


def test_a_version_is_known_without_data(tmp_path: Path) -> None:
    assert all(version_of(name, Settings()) for name in bundled_names())
    assert str(version_of("stdlib_en", Settings())).endswith(PYTHON)
    whole = version_of("bundled_ja", Settings())
    assert str(whole).startswith("mixed-") and whole != version_of("bundled_en", Settings())
    (tmp_path / "mine.yaml").write_text(OWN.format(name="mine", version=7))
    (tmp_path / "none.yaml").write_text("task: none\ndataset_path: json\n")
    (tmp_path / "both.yaml").write_text("group: both\ntask: [mine, {task: mine, num_fewshot: 1}]\n")
    sample = {"instruction": "i", "samples": [{"input": "a", "output": "b"}]}
    (tmp_path / "json_task.json").write_text(json.dumps(sample | {"version": "1.2"}))
    settings = Settings(include=tmp_path)
    told = {name: version_of(name, settings) for name in ("mine", "none", "both", "json_task")}
    assert told == {"mine": "7", "none": None, "both": "7", "json_task": "1.2"}


def test_a_kept_score_of_another_version_is_scored_again_and_said(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    run, said = random_run(tmp_path / "run", tiny_dataset), list[str]()

    checkpoints = Checkpoints(["pronouns_en"], limit=8, say=said.append, opened=load_model)
    (first,) = checkpoints.score(run, 0)
    assert first.version == version_of("pronouns_en", Settings())
    # Each person has a part of the questions.
    parts = {k: v for k, v in first.figures.items() if k.startswith("lean_")}
    counts = {k: v for k, v in parts.items() if k.endswith("_examples")}
    people = [k for k in parts if not k.endswith(("_examples", "_stderr"))]
    assert sum(counts.values()) == first.figures["n"] == 8 and len(counts) == len(people) > 1
    for old, words in (("1.0", "version 1.0"), (None, "an unknown version")):
        other = dataclasses.replace(first, version=old, figures={"acc": 0.125})
        keep_scores(run, 0, [other])
        said.clear()
        assert checkpoints.score(run, 0) == kept_scores(run, 0) == [first]
        note = checkpoints.notes[-1]
        assert len(said) == 1 and f"of {words} of the task" in note and "replaced" in note
    said.clear()
    assert checkpoints.score(run, 0) == [first] and not said  # this version is not scored again
    assert len(checkpoints.notes) == 2


def record(step: int, version: str | None, **figures: float) -> dict[str, Any]:
    named = {f"sum/{name}": value for name, value in figures.items()}
    told = {} if version is None else {"sum/version": version}
    return {"split": "task", "step": step, "tokens": 10 * step, "other/acc": 0.5} | named | told


def test_of_a_run_the_last_version_counts() -> None:
    records = [
        record(1, None, acc=0.1, acc_stderr=0.01),
        record(2, "1.0", acc=0.2),
        {"split": "train", "step": 2, "tokens": 20, "loss": 1.0},
        record(3, "2.0", acc=0.3),
        record(4, "2.0", acc=0.4),
    ]
    assert score_curves(records) == {
        "sum/acc": [(30, 0.3), (40, 0.4)],
        "other/acc": [(10, 0.5), (20, 0.5), (30, 0.5), (40, 0.5)],
    }
    left, notes = of_last_version(records)
    assert [sorted(k for k in one if "/" in k) for one in left[:2]] == [["other/acc"]] * 2
    assert len(notes) == 2
    assert "up to step 1 are of an unknown version" in notes[0]
    assert "up to step 2 are of version 1.0" in notes[1] and "version 2.0" in notes[1]


def test_replacing_another_version_is_said(tmp_path: Path) -> None:
    assert keep_scores(tmp_path, 1, [Scores("a", None, 10, {"acc": 0.5}, version="1.0")]) == []
    again = Scores("a", None, 10, {"acc": 0.75}, version="2.0")
    (note,) = keep_scores(tmp_path, 1, [again])
    assert "version 1.0" in note and "version 2.0" in note
    assert kept_scores(tmp_path, 1) == [again]
    file = tmp_path / "scores" / "1.json"
    held = json.loads(file.read_text())
    del held["scores"][0]["version"]  # as it was kept before there were versions
    file.write_text(json.dumps(held))
    assert kept_scores(tmp_path, 1) == [dataclasses.replace(again, version=None)]
