"""The sinks beside metrics.jsonl: Weights & Biases against a stand-in, TensorBoard for real."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tiny import run_config

from llm_jax.config import ConfigError, RunConfig
from llm_jax.train.metrics import Log


def opened(config: RunConfig, start: int) -> Log:
    log = Log(config, quiet=False)
    log.open(start)
    return log


def test_records_go_to_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any]] = []
    run = SimpleNamespace(
        define_metric=lambda name, step_metric: seen.append(("metric", (name, step_metric))),
        log=lambda values: seen.append(("log", values)),
        finish=lambda: seen.append(("finish", None)),
    )

    def init(**fields: Any) -> Any:
        seen.append(("init", fields))
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))  # type: ignore[arg-type]
    for _ in range(2):
        log = opened(run_config(tmp_path, wandb="pretraining"), 0)
        record = {"split": "train", "step": 3, "tokens": 384, "loss": 2.5, "why": "text"}
        log.write(record, "step 3")
        log.close()
    first, second = (value for kind, value in seen if kind == "init")
    assert first["project"] == "pretraining" and first["config"]["steps"] == 20
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert ("metric", ("*", "step")) in seen
    assert ("log", {"train/loss": 2.5, "step": 3, "tokens": 384}) in seen
    assert seen[-1] == ("finish", None)


def test_without_the_package_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"pip install 'llm-jax\[wandb\]'"):
        opened(run_config(tmp_path, wandb="pretraining"), 0)


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    """TFRecord framing: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    log = opened(run_config(tmp_path), 2)
    log.write({"split": "train", "step": 3, "tokens": 384, "loss": 2.5, "why": "text"}, "step 3")
    log.write({"split": "validation", "step": 3, "tokens": 384, "loss": 2.75}, "step 3")
    log.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[12 + length + 4 :]
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert scalars == [(3, "train/loss", 2.5), (3, "validation/loss", 2.75)]
    # What an earlier start had measured after step 2 is to be forgotten.
    assert [e.step for e in events if e.session_log.status == SessionLog.START] == [3]
