"""What `launch status` shows of a run, from the files that its trainer leaves."""

import json

import pytest

from llm_jax import config
from llm_jax.launch.folder import open_folder
from llm_jax.launch.job import status
from llm_jax.launch.progress import progress, progress_line
from llm_jax.runs.plan_file import PlanRecord


@pytest.fixture
def run(run_json, tmp_path):
    """A folder with the run.json of a run of 40 steps of 8 x 1024 tokens, and its `RunConfig`."""
    plan = PlanRecord(
        params=1, tokens=1, step_seconds=1, step_seconds_low=1, step_seconds_high=1, hours=10,
        machine="v5p", usd=500.0,
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(config.to_json(config.load(run_json)))
    (tmp_path / "run" / "plan.json").write_text(config.to_json(plan))
    return tmp_path / "run"


def test_time_and_money_left(run):
    folder = open_folder(str(run))
    assert progress(folder) is None  # before the first figures
    figures = {"tokens_per_second": 8192.0, "mfu": 0.5, "goodput": 0.8, "tokens": 1}
    records = [
        {"split": "train", "step": 10, "loss": 3.5, **figures},
        {"split": "validation", "step": 20, "loss": 3.25},
        {"split": "skipped", "step": 21, "why": "the loss is nan"},
        {"split": "train", "step": 22, "loss": 3.0, **figures},
    ]
    text = "".join(json.dumps(r) + "\n" for r in records) + '{"split": "tra'
    (run / "metrics.jsonl").write_text(text)
    now = progress(folder)
    # 18 steps at a step a second and a goodput of 0.8, at 50 USD an hour.
    assert now["hours_left"] == pytest.approx(18 / 0.8 / 3600)
    assert now["usd_left"] == pytest.approx(50 * 18 / 0.8 / 3600)
    assert (now["step"], now["steps"], now["loss"], now["validation_loss"]) == (22, 40, 3.0, 3.25)
    assert progress_line(now) == (
        "step 22/40  loss 3.0000  validation 3.2500  8,192 tokens/s  MFU 50%  goodput 80%  "
        "1 step skipped  0.01 h left  about 0 USD left to spend"
    )


def test_a_run_that_is_launched_again_is_not_at_its_beginning(run, make_spec, store):
    spec = make_spec(out=str(run))
    store(spec)
    assert status(spec.out)["step"] == -1
    figures = {"split": "train", "step": 40, "loss": 3.5, "tokens_per_second": 1.0}
    (run / "metrics.jsonl").write_text(json.dumps(figures) + "\n")
    (run / "status.0.json").write_text('{"phase": "startup", "step": 0, "time": 1}')
    assert status(spec.out)["step"] == 40


def test_no_run_no_progress(tmp_path):
    assert progress(open_folder(str(tmp_path))) is None
