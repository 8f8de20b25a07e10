"""A run, its dataset and its plan from before `run.json` had a format: they open, and resume.

`format1.tar.gz` holds a dataset of the standard library's `json` package and a run of eight steps
on it, with its checkpoints after 4 and 8, as the version before wrote them.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny import compute_config, model_config, run_config

from llm_jax.cli import main
from llm_jax.config import (
    ConfigError,
    DataConfig,
    ParallelConfig,
    RunConfig,
    UserError,
    from_dict,
    load,
    to_dict,
)
from llm_jax.config.migrations import format_of
from llm_jax.runs.history import read_history
from llm_jax.runs.plan_file import PlanRecord, plan_named, read_plan
from llm_jax.train.load import load_run
from llm_jax.train.loop import train

PLANNED = {
    "params": 2_016_640,
    "tokens": 6_879_232,
    "loss": 2.8279664996512337,
    "loss_interval": [2.730485264804929, 2.9254477344975385],
    "steps": 6718,
    "learning_rate": 0.004188104524533807,
}


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds `run` and `dataset`."""
    with tarfile.open(Path(__file__).with_name("format1.tar.gz")) as tar:
        tar.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as end:
        main([*argv, "--json"])
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    return json.loads(out)


def metrics(run: Path, split: str, figure: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[figure] for line in lines if line["split"] == split}


def test_the_plan_of_an_old_run_is_read_where_it_was(before: Path) -> None:
    assert "format" not in json.loads((before / "run" / "run.json").read_text())
    plan = read_plan(before / "run")
    assert plan is not None
    assert (plan.loss, plan.usd, plan.machine) == (5.5, 1.5, "1x local")
    config = load("run")
    assert to_dict(config)["format"] == format_of(RunConfig) == 3
    assert read_history(before / "run", config).tokens(8) == 1024


def test_a_recipe_has_no_plan_of_a_folder_with_its_name(before: Path) -> None:
    (before / "run").rename(before / "tiny")
    assert read_plan("tiny") is not None
    assert plan_named("tiny") is None  # CONFIG names the recipe
    assert plan_named("tiny/run.json") == plan_named("./tiny") == read_plan("tiny")
    assert plan_named("no-such-recipe") is None


@pytest.mark.slow
def test_an_old_run_is_evaluated_and_reported(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = metrics(before / "run", "validation", "loss")
    found = call(capsys, "report", "run", "--out", "page")
    assert found["measured_loss"] == old[8]
    assert found["predicted_loss"] == 5.5
    loss = call(capsys, "eval", "run", "--step", "8")["loss"]
    assert loss == pytest.approx(5.8671585852358525, abs=1e-5)


@pytest.mark.slow
def test_an_old_run_resumes_from_its_checkpoint(before: Path) -> None:
    """The steps after the checkpoint are those that the version before made, bit for bit between
    two of today's starts, and within rounding on another processor."""
    shutil.rmtree(before / "run" / "checkpoints" / "8")
    old = metrics(before / "run", "train", "loss")
    ends = []
    for name in ("once", "twice"):
        shutil.copytree(before / "run", before / name)
        result = train(load(name), plan=read_plan(name))
        assert result["step"] == 8
        new = metrics(before / name, "train", "loss")
        np.testing.assert_allclose([new[n] for n in (5, 6, 7, 8)], [old[n] for n in (5, 6, 7, 8)],
                                   atol=2e-4)  # fmt: skip
        ends.append(load_run(name).params)
        written = json.loads((before / name / "run.json").read_text())
        assert written["format"] == 3 and "plan" not in written
        assert read_plan(name) == read_plan("run")
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_fields_that_became_one_keep_their_values() -> None:
    """Format 2 had three switches for biases and two fields for a ramp."""
    now = run_config(
        model=model_config(biases=("qkv", "mlp")),
        data=DataConfig(seq_len=16, batch_size=8, ramp="2:7"),
        compute=compute_config(accumulate=4),
        parallel=ParallelConfig(pipeline=2, pieces=2),
    )
    raw = to_dict(now) | {"format": 2}
    for part, name in (("model", "biases"), ("data", "ramp"), ("compute", "accumulate")):
        del raw[part][name]
    raw["model"] |= {"qkv_bias": True, "out_bias": False, "mlp_bias": True}
    raw["data"] |= {"ramp_from": 2, "ramp_steps": 7}
    raw["optim"]["accumulate"] = 4
    raw["parallel"]["microbatches"] = raw["parallel"].pop("pieces")
    assert from_dict(raw, RunConfig) == now
    raw["data"] |= {"ramp_from": None, "ramp_steps": 0}
    raw["model"] |= {"qkv_bias": False, "mlp_bias": False}
    older = from_dict(raw, RunConfig)
    assert older.data.ramp is None and older.model.biases == ()


def test_a_law_of_the_version_before_plans_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are what `plan` printed for this file before this version. Its step time is no
    part of them: it belongs to the planner, not to the law, and is fitted to published runs now.
    """
    law = Path(__file__).with_name("law_before.json")
    monkeypatch.chdir(tmp_path)
    flags = ["--flops", "1e14", "--law", str(law), "--chip", "h100", "--data", "nowhere"]
    made = call(capsys, "plan", *flags)
    assert {name: made[name] for name in PLANNED} == PLANNED


def test_what_a_newer_version_wrote_is_refused(before: Path) -> None:
    raw = to_dict(load("run")) | {"format": 4}
    with pytest.raises(ConfigError, match=r"run\.format is 4.*up to 3"):
        from_dict(raw, RunConfig)
    for wrong in (0, -1, True, "2", None):
        with pytest.raises(ConfigError, match=r"run\.format is"):
            from_dict(raw | {"format": wrong}, RunConfig)
    plan = to_dict(read_plan("run"))
    assert from_dict(plan, PlanRecord) == read_plan("run")
    with pytest.raises(ConfigError, match=r"format is 2.*up to 1"):
        from_dict(plan | {"format": 2}, PlanRecord)
    info = json.loads(Path("dataset/dataset.json").read_text())
    Path("dataset/dataset.json").write_text(json.dumps(info | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        train(load("run"))
