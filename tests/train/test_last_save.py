"""The save after SIGTERM fits into the time that the platform gives."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.config import CheckpointConfig, ConfigError, EvalConfig, RunConfig, to_json
from llm_jax.config.grace import GRACE, grace_seconds
from llm_jax.launch.agent import Agent
from llm_jax.launch.folder import open_folder
from llm_jax.launch.spec import JobSpec
from llm_jax.train import save_speed
from llm_jax.train.checkpoint import Checkpointer
from llm_jax.train.damage import saved_steps
from llm_jax.train.loop import train
from llm_jax.train.metrics import Log, read_metrics
from llm_jax.train.stop import Stop


@pytest.fixture
def config(tmp_path: Path, tiny_dataset: Path) -> RunConfig:
    return run_config(
        tmp_path / "run",
        tiny_dataset,
        steps=8,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        checkpoint=CheckpointConfig(every=100, local=str(tmp_path / "disk"), local_every=99),
        eval=EvalConfig(every=100, batches=1),
    )


def stopped_at_3(
    config: RunConfig, grace: str, rate: float, monkeypatch: pytest.MonkeyPatch
) -> dict:
    """Trains on storage that is taken for one of `rate` bytes a second; SIGTERM after step 3."""
    advance = Log.advance

    def noting(log: Log, step: int) -> None:
        advance(log, step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Log, "advance", noting)
    monkeypatch.setattr(save_speed, "ASSUMED", rate)
    monkeypatch.setenv(GRACE, grace)
    return train(config)


@pytest.mark.slow
def test_slow_storage_comes_second(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = stopped_at_3(config, "600", 10.0, monkeypatch)
    said = capsys.readouterr().err
    assert (result["step"], result["exit_code"]) == (3, 75)
    assert "Step 3 was saved on the hosts' own disks first." in said
    assert saved_steps(Path(config.out) / "checkpoints") == [3]
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(20)  # one that was cancelled ends soon after, this one's in ten minutes
            assert not thread.is_alive()


@pytest.mark.slow
def test_without_disks_of_its_own_the_risk_is_said(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = dataclasses.replace(config, checkpoint=CheckpointConfig(every=100))
    stopped_at_3(alone, "600", 10.0, monkeypatch)
    said = capsys.readouterr().err
    assert "It may be cut off, and the next start then resumes from the checkpoint before." in said
    assert saved_steps(Path(config.out) / "checkpoints") == [3]


@pytest.mark.slow
def test_fast_storage_is_enough(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stopped_at_3(config, "600", 1e9, monkeypatch)["exit_code"] == 75
    assert "own disks" not in capsys.readouterr().err
    assert not list(Path(str(config.checkpoint.local)).glob("*/0/3"))


@pytest.mark.slow
def test_a_last_step_that_only_the_disks_have_is_saved_in_the_folder(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps are done and evaluated, but the save in the folder was cut off."""
    config = dataclasses.replace(config, steps=3)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "save", lambda *args: save_speed.Hold(0.0, 0.0))
        stopped_at_3(config, "600", 10.0, patched)
    assert not saved_steps(Path(config.out) / "checkpoints")
    assert train(config)["exit_code"] == 0
    assert saved_steps(Path(config.out) / "checkpoints") == [3]


HANGS = """
import os, signal, sys, time
from pathlib import Path
from llm_jax.config import RunConfig, read_config
from llm_jax.train import save_speed, sums
from llm_jax.train.loop import train
from llm_jax.train.metrics import Log

advance = Log.advance
def noting(log, step):
    advance(log, step)
    if step == 3:
        os.kill(os.getpid(), signal.SIGTERM)

Log.advance, save_speed.ASSUMED = noting, 10.0
sums.own_sums = lambda *args: time.sleep(1000)
train(read_config(Path(sys.argv[1]), RunConfig))
"""


@pytest.mark.slow
@pytest.mark.parametrize("every", [100, 3])
def test_a_save_that_hangs_costs_no_step(
    every: int, config: RunConfig, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The program leaves by itself, 3 s before it would be killed, and says that it has saved: also
    if the save of that step was due, and has begun before the program stops."""
    policy = dataclasses.replace(config.checkpoint, every=every, local_every=every - 1)
    config = dataclasses.replace(config, checkpoint=policy)
    (tmp_path / "run.json").write_text(to_json(config))
    command = [sys.executable, "-c", HANGS, str(tmp_path / "run.json")]
    done = subprocess.run(
        command, env=environment | {GRACE: "12"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 75, done.stderr
    assert "The save in the run's folder did not end in time." in done.stderr
    assert not saved_steps(Path(config.out) / "checkpoints")
    again = [sys.executable, "-m", "llm_jax", "train", str(tmp_path / "run.json")]
    resumed = subprocess.run(again, env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "after step 3: 24 sequences" in resumed.stderr
    steps = [r["step"] for r in read_metrics(Path(config.out) / "metrics.jsonl") if "loss" in r]
    assert [step for step in steps if step <= 8][:8] == list(range(1, 9))


@pytest.mark.parametrize("text", ["", "soon", "0", "-3", "nan", "inf"])
def test_a_grace_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{GRACE} is '{text}': set it to the seconds"):
        grace_seconds({GRACE: text})


def test_the_launcher_tells_the_grace(tmp_path: Path) -> None:
    spec = JobSpec(
        name="job", config="run.json", out=str(tmp_path), accelerator="cpu-1", grace_seconds=25
    )
    agent = Agent(open_folder(str(tmp_path)), spec, 0, {"LLM_JAX_PROCESS": "0"})
    env = agent.trainer_environment("0000", {"address": "10.0.0.1", "port": 1234})
    assert grace_seconds(env) == 25


def test_the_time_that_is_left() -> None:
    assert grace_seconds({}) is None
    with Stop(grace_seconds({GRACE: "30.5"})) as stop:
        assert stop.left() is None
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        left = stop.left()
        assert left is not None and left < 30.46
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested() and stop.left() is None
