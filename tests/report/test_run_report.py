"""The report of a run, on folders whose figures are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from page_parts import Page

from llm_jax.cli import main
from llm_jax.config import DataConfig, RunConfig, to_json
from llm_jax.facts.hardware import chip
from llm_jax.plan.own_speed import own_speed, predicted_seconds
from llm_jax.report.series import DRAWN, series, smoothed, thinned
from llm_jax.report.verdict import headline
from llm_jax.runs.history import Entry, History, Text, append, read_history
from llm_jax.runs.plan_file import PlanRecord

STEPS = 40
HOSTILE = '<script>alert("x")</script> & "quotes" ‮'
TOKENS = 128
"""A step's."""


def record(step: int) -> dict[str, Any]:
    """What step `step` measured: a loss that falls and swings, at 64 tokens a second."""
    return {
        "split": "train",
        "step": step,
        "tokens": TOKENS * step,
        "loss": 6 - 0.05 * step + (0.5 if step % 2 else -0.5),
        "bits_per_byte": 2.0,
        "grad_norm": 1.0 + step / STEPS,
        "learning_rate": 1e-3 * step,
        "tokens_per_second": 64.0,
        "mfu": 0.25,
    }


def write_run(folder: Path, *, name: str = "known", **planned: Any) -> RunConfig:
    """A finished run of 40 steps of 2 s that was resumed once and skipped a step."""
    data = folder.parent / "data"
    config = tiny.run_config(
        folder, data, name="known", steps=STEPS, data=DataConfig(
            path=str(data), seq_len=16, batch_size=8
        )
    )  # fmt: skip
    folder.mkdir()
    data.mkdir(exist_ok=True)
    (data / "dataset.json").write_text(json.dumps(dataset(name)))
    (folder / "run.json").write_text(to_json(config))
    append(folder, Entry(0, json.loads(to_json(config)), Text("f" * 64, 1280)))
    skipped = {"split": "skipped", "step": 30, "tokens": TOKENS * 30, "why": "the loss is nan"}
    validation = {"split": "validation", "step": STEPS, "tokens": TOKENS * STEPS,
                  "loss": 4.0, "bits_per_byte": 1.5}  # fmt: skip
    lines = [*(record(step) for step in range(1, STEPS + 1) if step != 30), skipped, validation]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    starts = [
        {"began": 0.0, "seen": 60.0, "first": 0, "step": 25,
         "seconds": {"compile": 10, "step": 50}, "devices": "4 × TPU v5p", "versions": {}},
        # Steps 21 to 25 were lost, 40 s passed.
        {"began": 100.0, "seen": 150.0, "first": 20, "step": 40,
         "seconds": {"compile": 6, "save": 4, "step": 40}, "devices": "4 × TPU v5p",
         "versions": {"llm-jax": "0.1.0"}},
    ]  # fmt: skip
    (folder / "time.json").write_text(json.dumps(starts))
    if planned:
        (folder / "plan.json").write_text(to_json(plan(config, **planned)))
    return config


def plan(config: RunConfig, **changes: Any) -> PlanRecord:
    from llm_jax.facts.counts import total_parameters

    fields: dict[str, Any] = {
        "params": total_parameters(config.model), "tokens": TOKENS * STEPS, "step_seconds": 1.6,
        "step_seconds_low": 1.25, "step_seconds_high": 2.5, "hours": 0.02, "machine": "v5p-8",
        "usd": 10.0, "kwh": 2.0, "law": "tiny", "loss": 4.1, "loss_low": 3.9, "loss_high": 4.3,
    }  # fmt: skip
    return PlanRecord(**(fields | changes))


def dataset(name: str) -> dict[str, Any]:
    split = {"documents": 9, "tokens": 1280, "bytes": 4000}
    return {
        "format": 3,
        "sources": [{"input": name, "encoding": "utf-8", "licence": name}],
        "lost": {"count": 2},
        "documents": {"in": 20, "out": 11},
        "dropped": {"duplicate": 6, "empty": 1},
        "licences": {name: 11},
        "split_by": "document",
        "splits": {"train": split, "validation": {"documents": 2, "tokens": 300, "bytes": 900}},
        "tokens": 1580,
        "bytes": 4900,
        "text_bytes": 4900,
        "tokenizer_sha256": "a" * 64,
        "vocab_size": 64,
        "record_tokens": 16,
        "fingerprint": "f" * 64,
    }


def report(capsys: pytest.CaptureFixture[str], folder: Path) -> tuple[dict[str, Any], str]:
    """The report's figures, and its page."""
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(folder), "--json"])
    out, err = capsys.readouterr()
    assert stopped.value.code == 0, err
    found = json.loads(out)
    return found, Path(found["html"]).read_text(encoding="utf-8")


def test_figures_of_a_planned_run(tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "run", loss=4.1)
    found, html = report(capsys, tmp_path / "run")
    # 40 steps of 2 s, of which 5 of 25 in the first start were done again.
    assert found["goodput"] == pytest.approx((50 * 0.8 + 40) / 150)
    assert found["wall_seconds"] == pytest.approx(
        {"productive": 80, "lost": 10, "idle": 40, "compile": 16, "save": 4}
    )
    assert found["measured_step_seconds"] == 2.0
    assert found["measured_hours"] == pytest.approx(110 / 3600)
    assert found["measured_usd"] == pytest.approx(10 * 110 / 3600 / 0.02)
    assert found["measured_kwh"] == pytest.approx(2 * 110 / 3600 / 0.02)
    assert (found["starts"], found["skipped_steps"], found["rollbacks"]) == (2, 1, 0)
    assert found["verdict"] == {"loss": "within", "step_seconds": "within"}
    assert found["warnings"] == []
    page = Page(html)
    assert page.row("validation loss, nats/token") == [
        "4.1000", "3.9000 to 4.3000", "4.0000", "-2.4%"
    ]  # fmt: skip
    assert page.row("step time") == ["1.6 s", "1.25 s to 2.5 s", "2 s", "+25.0%"]
    assert page.row("steps that count") == ["1.33 min, 53.3%"]
    assert page.row("steps done again after a restart") == ["10 s, 6.7%"]
    assert page.row("Devices") == ["4 × TPU v5p"]
    assert page.row("Software") == ["llm-jax 0.1.0"]
    assert page.row("Epochs") == ["4.00 of 1,280 tokens"]
    assert page.row("Left out") == ["duplicate 6, empty 1, could not be used 2"]
    assert page.row("Documents")[0].startswith("20 found, 11 kept: 9 to learn from, 2 held out")
    assert "Loss and step time as predicted" in html and "--calibrate" in html
    assert "1 step skipped by the guard" in html and "1 restart" in html
    assert "Evaluations" not in html and "Samples" not in html


@pytest.mark.slow
def test_a_report_teaches_the_next_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    config = write_run(tmp_path / "run")

    def asked(*words: str) -> tuple[int | str | None, str]:
        with pytest.raises(SystemExit) as end:
            main([*words, "--json"])
        said = capsys.readouterr()
        return end.value.code, said.out or said.err

    report, chips = ("report", str(tmp_path / "run")), ("--chip", "v5p-8")
    assert json.loads(asked(*report)[1])["calibration"] is None
    assert "only --calibrate needs" in asked(*report, "--chips", "4")[1]
    page = tmp_path / "run" / "report.html"
    page.unlink()
    assert "--calibrate needs --chips" in asked(*report, "--calibrate", "--chip", "v5p")[1]
    assert "2 s, and" in asked(*report, "--calibrate", *chips)[1]  # no v5p is so slow
    assert not (tmp_path / "config" / "llm_jax").exists() and not page.exists()
    metrics, rate = (
        tmp_path / "run/metrics.jsonl",
        TOKENS / predicted_seconds(config, chip("v5p"), 4),
    )
    metrics.write_text(metrics.read_text().replace(" 64.0", f" {rate / 1.3}"))
    told = json.loads(asked(*report, "--calibrate", *chips)[1])["calibration"]
    (row,) = told["runs"]
    assert row["ratio"] == pytest.approx(1.3)
    assert own_speed(chip("v5p")).factor == pytest.approx(told["factor"])  # type: ignore[union-attr]
    again = asked("plan", "--calibrate", str(tmp_path / "run"), *chips)
    assert json.loads(again[1]) == told


@pytest.mark.parametrize(
    ("changes", "verdict", "title", "kind"),
    [
        ({"loss_low": 4.05}, ("below", "within"),
         "Step time as predicted, loss better than predicted", "good"),
        ({"step_seconds_high": 1.9}, ("within", "above"),
         "Loss as predicted, step time worse than predicted", "warn"),
        ({"loss_low": 3.7, "loss_high": 3.9, "step_seconds_high": 1.9}, ("above", "above"),
         "Loss and step time worse than predicted", "warn"),
        ({"step_seconds_low": 1.6, "step_seconds_high": 1.6}, ("within", None),
         "Loss as predicted; no interval for the step time", "note"),
        ({"step_seconds_low": 1.6, "step_seconds_high": 1.6, "loss_low": None}, (None, None),
         "Without an interval, there is no verdict", "note"),
        ({"step_seconds_low": 1.6, "step_seconds_high": 1.6, "loss": None}, (None, None),
         "Without an interval, there is no verdict", "note"),
    ],
)  # fmt: skip
def test_verdicts(changes, verdict, title, kind, tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "run", **changes)
    found, html = report(capsys, tmp_path / "run")
    assert found["verdict"] == dict(zip(("loss", "step_seconds"), verdict, strict=True))
    assert headline(found) == (title, kind)
    assert f'<div class="{kind}"><h3>{title}</h3>' in html


def test_curves(tmp_path: Path) -> None:
    config = write_run(tmp_path / "run")
    run = series(tmp_path / "run", config, read_history(tmp_path / "run", config))
    steps = [step for step in range(1, STEPS + 1) if step != 30]
    assert run.learning_rate == [(TOKENS * step, 1e-3 * step) for step in steps]
    assert run.step_seconds[0] == (TOKENS, 2.0)
    # The mean of seven of the 39 records: the swing of 0.5 becomes a seventh of that.
    at_ten = dict(run.smooth_loss)[TOKENS * 10]
    assert at_ten == pytest.approx(6 - 0.05 * 10 + 0.5 / 7)
    last_four = [loss for _, loss in run.loss[-4:]]
    assert run.smooth_loss[0] == run.loss[0]
    assert run.smooth_loss[-1] == (TOKENS * STEPS, pytest.approx(sum(last_four) / 4))
    assert run.restarts == [TOKENS * 20]
    assert run.skipped == [TOKENS * 30]


def test_smoothing_keeps_the_slope() -> None:
    line = [3.0 - 0.1 * i for i in range(50)]
    assert smoothed(line, 4)[:-4] == pytest.approx(line[:-4])
    assert smoothed(line, 4)[-1] == pytest.approx(line[-3])
    assert smoothed([1.0, 4.0, 1.0], 9) == pytest.approx([1.0, 2.0, 2.0])
    assert smoothed([7.0], 3) == [7.0]
    curve = [(float(i), 0.0) for i in range(100_000)]
    assert len(thinned(curve)) <= DRAWN + 1 and thinned(curve)[-1] == curve[-1]


def test_hostile_text_is_text(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    write_run(folder, name=HOSTILE, law=HOSTILE, machine=f"v5p {HOSTILE}", law_text=HOSTILE)
    sample = {"prompt": HOSTILE, "text": HOSTILE, "stopped": True}
    samples = {"step": 40, "how": HOSTILE, "samples": [sample]}
    (folder / "samples.json").write_text(json.dumps(samples))
    gram = {"order": 5, "trained_tokens": 1280, "loss": 4.5, "bits_per_byte": 1.9, "tokens": 299,
            "bytes": 900}  # fmt: skip
    score = {
        "loss": 4.0,
        "bits_per_byte": 1.5,
        "tokens": 299,
        "bytes": 900,
        "step": 40,
        "perplexity": 54.6,
        "ngram": {HOSTILE: gram},
        "tasks": {HOSTILE: {HOSTILE: 0.5}},
    }
    (folder / "evaluations.json").write_text(json.dumps({HOSTILE: score}))
    _, html = report(capsys, folder)
    page = Page(html)
    assert page.text.count('<script>alert("x")</script>') >= 8
    page.check_that_it_is_alone()
    assert page.rows.count([HOSTILE] * 2 + ["0.5"]) == 1
    assert [row for row in page.rows if "5-gram Kneser-Ney" in "".join(row) and "1.9000" in row]


def test_facts_of_another_text_are_left_out(tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "run")
    other = dataset("other") | {"fingerprint": "e" * 64}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(other))
    _, html = report(capsys, tmp_path / "run")
    assert "has another text now" in html and "Licences" not in html
    (tmp_path / "data" / "dataset.json").unlink()
    _, html = report(capsys, tmp_path / "run")
    assert "There is no dataset" in html and "Licences" not in html


def test_a_run_of_which_little_is_known(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    write_run(folder)
    for name in ("time.json", "history.jsonl"):
        (folder / name).unlink()
    lines = [
        {"split": "train", "step": 40, "tokens": 5120, "loss": 4.0, "tokens_per_second": 64.0},
        {"split": "validation", "step": 40, "tokens": 5120, "loss": 4, "bits_per_byte": 1},
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found, html = report(capsys, folder)
    assert (found["goodput"], found["mfu"], found["measured_usd"]) == (None, None, None)
    assert found["measured_hours"] == pytest.approx(80 / 3600)
    assert "Goodput" not in html and "Where the time went" not in html
    assert html.count("<svg") == 2  # loss and throughput


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("samples.json", '{"step": 1, "how": 3, "samples": []}', "how"),
        ("evaluations.json", '{"a": {"step": 1}}', "loss"),
        ("rollbacks.json", "[{}]", "step"),
    ],
)
def test_a_damaged_file_is_one_sentence(name, content, word, tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path / "run")])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out, err.count("\n")) == (2, "", 1)
    assert name in err and word in err


def test_a_history_of_two_texts_has_no_epochs(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    config = write_run(folder)
    entry = Entry(20, json.loads(to_json(config)), Text("e" * 64, 99), 0.0, 160, 2560,
                  {"run.data.path": ["a", "b"]}, "another text")  # fmt: skip
    append(folder, entry)
    assert isinstance(read_history(folder, config), History)
    _, html = report(capsys, folder)
    assert "Epochs" not in html
