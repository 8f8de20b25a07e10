"""Tasks that are scored while a run trains, by a stand-in for the scorer."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tiny import VOCAB, model_config, run_config

from llm_jax.config import CheckpointConfig, ConfigError, DataConfig, EvalConfig, RunConfig
from llm_jax.report.outcome import compare
from llm_jax.report.outcome_page import page
from llm_jax.report.series import series
from llm_jax.runs.history import read_history
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics
from llm_jax.train.task_scores import Pace, TaskScores

TIMES = ("seconds", "time_share")


def known(out: Path, data: Path, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "tasks": ("sum", "broken", "odd"),
        "tasks_every": 2,
        "every": 3,
        "batches": 1,
    }
    return run_config(
        out,
        data,
        steps=6,
        model=model_config(vocab_size=VOCAB),
        data=DataConfig(path=str(data), seq_len=16, batch_size=8),
        eval=EvalConfig(**(fields | changes)),
        checkpoint=CheckpointConfig(every=2, keep_last=3),
    )


class Scoring:
    """Remembers what it was asked; its figures are exact functions of the parameters."""

    def __init__(self, version: str = "1.0") -> None:
        self.asked: list[tuple[str, int]] = []
        self.version = version

    def __call__(self, config: RunConfig, mesh: Any, tokenizer: Any) -> Prepared:
        return Prepared(self)

    def score(self, task: str, params: Any, step: int) -> Mapping[str, float]:
        self.asked.append((task, step))
        if task == "broken":
            raise KeyError("no data")
        total = sum(np.sum(np.asarray(leaf), dtype=np.float64) for leaf in jax.tree.leaves(params))
        share = float(total % 1)
        if task == "odd":
            return {"acc": share, "acc_stderr": float("nan")}
        return {"acc": share, "acc_stderr": 0.125, "nats": float(total)}


class Prepared:
    """A scorer whose task "unready" has no data."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring = scoring

    def prepare(self, task: str) -> str:
        if task == "unready":
            raise FileNotFoundError("no file")
        return ""

    def version(self, task: str) -> str | None:
        return None if task == "odd" else self.scoring.version

    def __call__(self, task: str, params: Any, step: int) -> Mapping[str, float]:
        return self.scoring.score(task, params, step)


def scores(out: Path) -> list[dict[str, Any]]:
    found = [one for one in read_metrics(out / "metrics.jsonl") if one["split"] == "task"]
    return [{k: v for k, v in one.items() if k not in TIMES} for one in found]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path
) -> tuple[Path, Scoring, str]:
    """A run that was never stopped, what it was asked, and what it printed."""
    out, scoring, said = tmp_path_factory.mktemp("scored") / "run", Scoring(), io.StringIO()
    with contextlib.redirect_stderr(said):
        assert train(known(out, tiny_dataset), tasks=scoring)["exit_code"] == 0
    return out, scoring, said.getvalue()


@pytest.fixture(scope="module")
def whole(finished: tuple[Path, Scoring, str]) -> Path:
    return finished[0]


def test_a_broken_task_is_counted_and_the_run_goes_on(
    finished: tuple[Path, Scoring, str],
) -> None:
    out, scoring, said = finished
    assert scoring.asked == [(t, s) for s in (2, 4, 6) for t in ("sum", "broken", "odd")]
    found = scores(out)
    assert [one["step"] for one in found] == [2, 4, 6]
    assert [one["failed"] for one in found] == [1.0, 1.0, 1.0]
    assert found[0]["sum/acc"] == found[0]["odd/acc"] != found[1]["sum/acc"]
    assert [one["sum/version"] for one in found] == ["1.0"] * 3 and "odd/version" not in found[0]
    assert "odd/acc_stderr" not in found[0] and found[0]["sum/acc_stderr"] == 0.125
    assert said.count("no data") == 1 and said.count("acc_stderr is not a finite number") == 1


@pytest.mark.slow
def test_a_resumed_run_has_the_same_scores_and_repeats_none(
    tmp_path: Path, whole: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, first, second = known(tmp_path / "run", tiny_dataset), Scoring(), Scoring()

    def stop(record: dict[str, Any]) -> bool:
        return not (record["split"] == "task" and record["step"] == 4)

    assert train(config, tasks=first, callback=stop)["exit_code"] != 0
    assert train(config, tasks=second)["exit_code"] == 0
    assert scores(tmp_path / "run") == scores(whole)
    assert {step for _, step in second.asked} == {6}
    # A finished run scores nothing, unless its last scores are missing.
    third, fourth = Scoring(), Scoring()
    assert train(config, tasks=third)["exit_code"] == 0 and not third.asked
    file = tmp_path / "run" / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(one for one in lines if '"task", "step": 6' not in one))
    result = train(config, tasks=fourth)
    assert {step for _, step in fourth.asked} == {6} and scores(tmp_path / "run") == scores(whole)
    held_out = [json.loads(one) for one in lines if '"split": "validation"' in one]
    assert result["loss"] == held_out[-1]["loss"]
    # Another version of the task is not put beside the first.
    file.write_text("".join(one for one in lines if '"task", "step": 6' not in one))
    capsys.readouterr()
    assert train(config, tasks=Scoring("2.0"))["exit_code"] == 0
    assert "sum: scores up to step 4 are of version 1.0 of the task" in capsys.readouterr().err


def test_scores_are_in_the_pictures_and_the_report(whole: Path, tiny_dataset: Path) -> None:
    found, config = compare(whole), known(whole, tiny_dataset)
    curves = series(whole, config, read_history(whole, config))
    html = page(whole, found, curves)
    last = scores(whole)[-1]
    assert f"{last['sum/acc']:.4f}" in html and "scoring tasks" in html
    assert "<td>1.0</td>" in html
    assert [tokens for tokens, _ in curves.scores["sum/acc"]] == [256, 512, 768]
    (board,) = (whole / "tensorboard").iterdir()
    data, tags = board.read_bytes(), set[str]()
    while data:
        size = int.from_bytes(data[:8], "little")
        tags |= {v.tag for v in Event.FromString(data[12 : 12 + size]).summary.value}
        data = data[16 + size :]
    assert {"task/sum/acc", "task/sum/acc_stderr", "task/time_share"} <= tags


def test_tasks_need_something_to_score_them(tmp_path: Path, tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval\.tasks"):
        train(known(tmp_path / "run", tiny_dataset))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tasks": ("a", "a")}, "eval.tasks names 'a' twice"),
        ({"task_limit": 0}, "eval.task_limit is 0"),
        ({"tasks_every": -1}, "eval.tasks_every is -1"),
        ({"few_shot": -1}, "eval.few_shot is -1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EvalConfig(**fields)


def test_scores_that_take_too_long_are_advised_against_once() -> None:
    pace = Pace(iter([100.0, 110.0, 120.0, 130.0]).__next__)
    assert pace.advice(9.0, 50) is None  # the first ones compile
    assert pace.advice(0.4, 50) is None  # 4%
    # A fifth of 10 s: 50 steps take 8 s, and 2 s are 5% of 40, so 38 s of steps.
    assert "from 50 to about 238" in str(pace.advice(2.0, 50))
    assert pace.advice(2.0, 50) is None


def test_a_task_without_data_is_never_begun(tmp_path: Path) -> None:
    said, scoring = list[str](), Scoring()
    config = known(tmp_path, tmp_path, tasks=("unready",))
    scores = TaskScores(config, cast(Any, None), cast(Any, None), scoring, said.append)
    assert scores.measure({}, 2, lambda: False) == ({}, {}, 1)
    assert scores.measure({}, 4, lambda: False) == ({}, {}, 1)
    assert said == [
        "Task unready is not scored (FileNotFoundError: no file); the run goes on."
    ] and not scoring.asked  # fmt: skip
