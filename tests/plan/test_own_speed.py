"""A user's runs correct the planner's time for their chip, and narrow its interval."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from llm_jax.cli import main
from llm_jax.config import ComputeConfig, DataConfig, ParallelConfig, load, to_json
from llm_jax.facts.calibration import calibration
from llm_jax.facts.hardware import chip
from llm_jax.plan.own_speed import own_speed, predicted_seconds


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(name: str, times: float) -> str:
    """The folder of a run on 32 v5e whose steps took `times` the planner's time."""
    config = dataclasses.replace(
        load("qwen3_0_6b"),
        data=DataConfig(seq_len=2048, batch_size=256),
        compute=ComputeConfig(remat="full"),
        parallel=ParallelConfig(fsdp=32),
    )
    rate = config.batch_tokens / predicted_seconds(config, chip("v5e"), 32) / times
    Path(name).mkdir()
    Path(name, "run.json").write_text(to_json(config))
    lines = [
        {"split": "train", "step": n, "tokens": n * config.batch_tokens, "loss": 3.0,
         "tokens_per_second": rate / (9 if n < 3 else 1)}
        for n in range(1, 9)
    ]  # fmt: skip
    Path(name, "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return name


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as end:
        main(["plan", *words, "--json"])
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    return json.loads(said.out)


def test_runs_of_ones_own_correct_and_narrow_the_next_plan(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    question = ("--params", "1B", "--tokens", "20B", "--chip", "v5e", "--chips", "64")
    before = ask(capsys, *question)
    flags = ("--chip", "v5e", "--chips", "32")
    one = ask(capsys, "--calibrate", run_of("a", 1.3), *flags)
    assert one["runs"][0]["ratio"] == pytest.approx(1.3)
    assert 1.15 < one["factor"] < 1.3  # the published runs are a prior
    after = ask(capsys, *question)
    assert after["hours"] == pytest.approx(before["hours"] * one["factor"])
    ask(capsys, "--calibrate", run_of("b", 1.3), run_of("c", 1.31), *flags)
    third = ask(capsys, *question)
    widths = [math.log(made["hours_range"][1] / made["hours_range"][0]) for made in (before, third)]
    assert widths[1] < widths[0]
    assert third["hours"] == pytest.approx(1.28 * before["hours"], rel=0.03)
    assert any("3 runs of your own on v5e" in reason for reason in third["reasons"])
    assert ask(capsys, *question[:4], "--chip", "v5p")["hours"] > 0
    assert own_speed(chip("v5p")) is None
    kept = json.loads((home / "config" / "llm_jax" / "speeds.json").read_text())
    assert len(kept["v5e"]) == 3
    known = next(one for one in calibration().chips if one.name == "v5e")
    assert own_speed(chip("v5e")).interval < known.interval  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nowhere", "--chips", "32"), "There is no run"),
        (("a",), "--calibrate needs --chips"),
        (("a", "--chips", "48"), "have 48 chips together"),
        (("a", "--chips", "16"), "needs a multiple of 32"),
        (("short", "--chips", "32"), "measured steps"),
    ],
)
def test_what_cannot_be_learnt_from(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    run_of("a", 1.0)
    run_of("short", 1.0)
    Path("short/metrics.jsonl").unlink()
    with pytest.raises(SystemExit) as end:
        main(["plan", "--chip", "v5e", "--calibrate", *words])
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (home / "config").exists()


def test_a_damaged_file_of_speeds_is_named(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    (home / "config" / "llm_jax").mkdir(parents=True)
    (home / "config" / "llm_jax" / "speeds.json").write_text('{"v5e": 3}')
    with pytest.raises(SystemExit) as end:
        main(["plan", "--flops", "1e20", "--chip", "v5e"])
    assert end.value.code == 2
    assert "speeds.json" in capsys.readouterr().err
