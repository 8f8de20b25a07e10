"""Scores against compute, on runs whose scores follow known curves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from page_parts import Page

from llm_jax.cli import main
from llm_jax.config import DataConfig, RunConfig, UserError, read_config, to_json
from llm_jax.facts.counts import token_flops, total_parameters
from llm_jax.report.emergence import emergence
from llm_jax.report.emergence_forecast import accuracy_error
from llm_jax.runs.history import append, beginning
from llm_jax.runs.scores import Scores, keep_scores, kept_scores, kept_steps

WIDTHS, STEPS, SHOTS, ERROR = (32, 48, 64, 96), (200, 600, 1800), (0, 1, 5), 0.01
BATCH = 8 * 64
TASK = "copying <b>&"


def loss(params: float, tokens: float) -> float:
    return 1.5 + 300 / params**0.45 + 150 / tokens**0.35


def figures(held_out: float, shots: int) -> dict[str, float]:
    """The answer's loss is a line over the loss, accuracy a steep sigmoid over that."""
    answer = 0.4 * held_out - 0.3 - 0.05 * shots
    accuracy = 0.25 + 0.75 / (1 + np.exp(9 * (answer - 1.2)))
    found = {"acc": accuracy, "answer_nats_per_byte": answer, "brier": 0.75 - accuracy / 2}
    return found | {f"{name}_stderr": ERROR for name in found} | {"chance": 0.25, "n": 100.0}


def write_run(out: Path, width: int, steps: int, *, saved: tuple[int, ...] = ()) -> None:
    out.mkdir(parents=True)
    config = tiny.run_config(
        out, "d", steps=steps, model=tiny.model_config(d_model=width, d_ff=2 * width),
        data=DataConfig(path="d", seq_len=64, batch_size=8),
    )  # fmt: skip
    (out / "run.json").write_text(to_json(config))
    params, lines = total_parameters(config.model), list[str]()
    for step in saved or (steps,):
        held_out = loss(params, BATCH * step)
        record = {"split": "validation", "step": step, "tokens": BATCH * step, "loss": held_out}
        lines.append(json.dumps(record | {"bits_per_byte": 1.0}) + "\n")
        made = [Scores(TASK, shots, 100, figures(held_out, shots)) for shots in SHOTS]
        keep_scores(out, step, made)
    (out / "metrics.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emergence") / "ladder"
    for width in WIDTHS:
        for steps in STEPS:
            write_run(folder / f"{width}-{steps}", width, steps)
    return folder


def called(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    with pytest.raises(SystemExit) as left:
        main(["emergence", *map(str, words), "--json"])
    assert left.value.code == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_the_largest_is_forecast_from_the_others(
    ladder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = called(capsys, ladder)
    points = found["points"]
    largest = tiny.model_config(d_model=96, d_ff=192)
    assert len(points) == 12 and points[-1]["name"] == "96-1800@1800"
    assert points[-1]["flops"] == pytest.approx(token_flops(largest, 64).train * 1800 * BATCH)
    assert [one["flops"] for one in points] == sorted(one["flops"] for one in points)
    held_out = loss(total_parameters(largest), 1800 * BATCH)
    for shots in SHOTS:
        told, known = found["tasks"][TASK][str(shots)], figures(held_out, shots)
        assert told["accuracy"] == "acc" and told["continuous"] == ["answer_nats_per_byte", "brier"]
        forecast = told["forecast"]
        assert forecast["loss"]["predicted"] == pytest.approx(held_out, rel=2e-3)
        assert forecast["task_loss"]["predicted"] == pytest.approx(
            known["answer_nats_per_byte"], abs=0.01
        )
        assert forecast["task_loss"]["measured"] == known["answer_nats_per_byte"]
        assert forecast["task_loss"]["within"]
    few = found["tasks"][TASK]["5"]["forecast"]["accuracy"]
    assert few["predicted"] == pytest.approx(figures(held_out, 5)["acc"], abs=0.02)
    assert few["difference"] == pytest.approx(few["measured"] - few["predicted"])
    leaps = found["tasks"][TASK]["5"]["leaps"]
    assert leaps["acc"] > leaps["answer_nats_per_byte"]


@pytest.mark.slow
def test_the_page_shows_the_same_numbers(ladder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = called(capsys, ladder, "--out", ladder.parent / "made" / "page.html")
    html = Path(found["html"]).read_text()
    page = Page(html)
    page.check_that_it_is_alone()
    assert TASK not in html and "copying &lt;b&gt;&amp;" in html
    few = found["tasks"][TASK]["5"]["forecast"]["accuracy"]
    for value in (few["predicted"], few["measured"], found["points"][-1]["loss"]):
        assert f"{value:.4f}" in page.text
    assert "zero-shot" in page.text and "5-shot" in page.text
    assert found["intervals"] in page.text and "a wrong form of the curve" in found["intervals"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "why"),
    [
        ({"byte_perplexity": 3.2}, "no share of right answers between 0 and 1"),
        ({"brier": 0.6, "chance": 0.75}, "no share of right answers between 0 and 1"),
        ({"exact_match": 0.3}, "its level of chance is not known"),
    ],
)
def test_only_accuracies_are_forecast_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: dict[str, float], why: str
) -> None:
    for width in WIDTHS:
        out = tmp_path / str(width)
        write_run(out, width, 600)
        (kept,) = [one for one in kept_scores(out, 600) if one.shots == 0]
        answer = kept.figures["answer_nats_per_byte"]
        keep_scores(out, 600, [Scores("own", 0, 9, first | {"answer_nats_per_byte": answer})])
    told = called(capsys, tmp_path)["tasks"]["own"]["0"]
    assert told["forecast"]["accuracy"] is None and told["forecast"]["task_loss"]["within"]
    assert why in told["why"] and next(iter(first)) in told["why"]
    with pytest.raises(SystemExit):
        main(["emergence", str(tmp_path)])
    said = capsys.readouterr().out
    assert why in said and "a wrong form of the curve" in said


def test_checkpoints_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", 48, 3200, saved=(100, 200, 400, 800, 1600, 3200))
    found = called(capsys, tmp_path / "run")
    assert [one["step"] for one in found["points"]] == [100, 200, 400, 800, 1600, 3200]
    assert not found["ladder"] and "checkpoints of one run" in found["notes"][0]
    told = found["tasks"][TASK]["0"]["forecast"]["loss"]
    assert told["predicted"] == pytest.approx(told["measured"], rel=5e-3)


def test_scores_of_another_version_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for width, version in ((32, "9.0"), (48, "10.0"), (64, None), (96, "10.0")):
        write_run(tmp_path / str(width), width, 200)
        made = [Scores("own", 0, 9, {"acc": width / 100}, version=version)]
        keep_scores(tmp_path / str(width), 200, made)
    found = called(capsys, tmp_path)
    assert found["versions"] == {TASK: None, "own": "10.0"}
    figures = found["tasks"]["own"]["0"]["figures"]
    assert [one and one["acc"] for one in figures] == [None, 0.48, None, 0.96]
    said = "\n".join(found["notes"])
    assert "own: scores of version 9.0 of the task are left out (32@200)" in said
    assert "own: scores of an unknown version of the task are left out (64@200)" in said
    assert f"The version of {TASK} is not known" in said
    page = Page(Path(found["html"]).read_text())
    assert "own, version 10.0" in page.text and "(32@200)" in page.text


def test_what_was_not_scored_is_said(
    ladder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, sentence in (
        ([tmp_path], "There is no run"),
        ([ladder, "--few-shot", "1"], "name --tasks"),
        ([ladder / "32-200", "--limit", "3"], "name --tasks"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["emergence", *map(str, words)])
        assert left.value.code == 2 and sentence in capsys.readouterr().err


def test_scores_are_kept_by_question(tmp_path: Path) -> None:
    first, other = Scores("a", None, 10, {"acc": 0.5}), Scores("a", 1, 10, {"acc": 0.25})
    keep_scores(tmp_path, 20, [first])
    keep_scores(tmp_path, 20, [other])
    keep_scores(tmp_path, 3, [Scores("a", None, 10, {"acc": 0.75})])
    again = Scores("a", None, 10, {"acc": 1.0})
    keep_scores(tmp_path, 20, [again])
    lost = Scores("b", None, 10, {"acc": float("nan"), "n": 3.0})
    part = Scores("c", None, 10, {"acc": 0.5, "f1": float("inf")})
    first_lost, second_lost = keep_scores(tmp_path, 3, [lost, part])
    assert "b at step 3: acc is not a finite number" in first_lost and "f1" in second_lost
    assert [one.figures for one in kept_scores(tmp_path, 3)] == [{"acc": 0.75}, {"acc": 0.5}]
    assert kept_steps(tmp_path) == [3, 20]
    assert {one.asked: one for one in kept_scores(tmp_path, 20)} == {
        again.asked: again,
        other.asked: other,
    }


def test_what_was_asked_for_is_shown(tmp_path: Path) -> None:
    """Not what else is kept of the same task; and models with other questions are told."""
    for width in WIDTHS[:2]:
        write_run(tmp_path / str(width), width, 600)
        half = Scores(TASK, 0, 50, {"acc": 0.5, "n": 50.0})
        keep_scores(tmp_path / str(width), 600, [half, Scores(TASK, 0, 50, {"acc": 1.0}, seed=1)])
    told = emergence(tmp_path, [TASK], lambda one: (one.limit, one.seed) == (50, 0))
    assert [one["acc"] for one in told["tasks"][TASK]["0"]["figures"]] == [0.5, 0.5]
    newest = emergence(tmp_path, [])
    assert [one["acc"] for one in newest["tasks"][TASK]["0"]["figures"]] == [1.0, 1.0]
    assert any("scored with different limits or seeds" in note for note in newest["notes"])
    more = Scores(TASK, 0, None, {"acc": 0.5, "n": 200.0})
    keep_scores(tmp_path / "32", 600, [more])
    keep_scores(tmp_path / "48", 600, [replace(half, seed=2)])
    notes = emergence(tmp_path, [])["notes"]
    assert any("some models were scored on 50 examples and others on up to 200" in n for n in notes)


def test_a_task_whose_figures_have_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for width, name in zip(WIDTHS, ("acc", "acc", "f1", "acc"), strict=True):
        write_run(tmp_path / str(width), width, 600)
        keep_scores(tmp_path / str(width), 600, [Scores("own", 0, 9, {name: 0.5})])
    found = called(capsys, tmp_path)
    assert [one and one["acc"] for one in found["tasks"]["own"]["0"]["figures"]] == [
        0.5, 0.5, None, 0.5
    ]  # fmt: skip
    assert "own: models that were scored without acc are left out." in found["notes"]


def test_scores_of_replaced_weights_are_said(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 32, 600)
    (kept,) = [one for one in kept_scores(tmp_path / "run", 600) if one.shots == 0]
    keep_scores(tmp_path / "run", 600, [replace(kept, weights="0" * 16)])
    saved = tmp_path / "run" / "checkpoints" / "600"
    saved.mkdir(parents=True)
    (saved / "manifest.json").write_text('{"params/d/0": [1, "aa"]}')
    found = emergence(tmp_path / "run", [])
    assert list(found["tasks"][TASK]) == ["1", "5"]
    assert any("run@600: scores of other parameters" in note for note in found["notes"])


def test_a_share_of_none_or_all_is_not_without_doubt() -> None:
    """A weight of 1/error² would have it outweigh all others."""
    wanted = math.sqrt(2 / 104 * 102 / 104 / 104)
    for share in (0.0, 1.0):
        told = {"acc": share, "acc_stderr": 0.0, "n": 100.0}
        assert accuracy_error("acc", told) == pytest.approx(wanted)
        assert accuracy_error("acc", told | {"acc_stderr": 0.01}) == 0.01
    assert accuracy_error("acc", {"acc": 0.5, "acc_stderr": 0.0, "n": 9.0}) == 0.0
    assert accuracy_error("acc", {"acc": 0.0}) == 0.0


def test_what_a_run_did_not_compute_itself_is_said(tmp_path: Path) -> None:
    for width in WIDTHS:
        write_run(tmp_path / str(width), width, 600)
    config = read_config(tmp_path / "48" / "run.json", RunConfig)
    (line,) = beginning(config, None, {"run": "base", "name": "base", "step": 9}).entries
    append(tmp_path / "48", line)
    (tmp_path / "32" / "scores" / "600.json").rename(tmp_path / "32" / "scores" / "0.json")
    found = emergence(tmp_path, [])
    assert [one["name"] for one in found["points"]] == ["48@600", "64@600", "96@600"]
    assert "32@0 has read no tokens here" in found["notes"][0]
    assert "48@600 began with the weights of base" in found["notes"][1]
    told = found["tasks"][TASK]["0"]
    assert told["forecast"] is None and "do not account for its loss" in told["why"]
    with pytest.raises(UserError, match="32@0 has read no tokens here"):
        emergence(tmp_path / "32", [])
