"""The sinks beside metrics.jsonl: Weights & Biases against a stand-in, TensorBoard's file."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
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


def records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord, their checksums compared with those of another implementation."""
    data = path.read_bytes()
    while data:
        size = int.from_bytes(data[:8], "little")
        record = data[12 : 12 + size]
        assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
        assert int.from_bytes(data[12 + size : 16 + size], "little") == masked_crc32c(record)
        yield record
        data = data[16 + size :]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    log = opened(run_config(tmp_path), 2)
    train = {"split": "train", "step": 300_000, "tokens": 384, "loss": 2.5, "time": 5.5, "why": "a"}
    log.write(train, "step 300000")
    log.write({"split": "validation", "step": 3, "tokens": 384, "loss": 2.75, "x": -1e-3}, "step 3")
    log.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert ".tfevents." in path.name
    events = [Event.FromString(record) for record in records(path)]
    assert events[0].file_version == "brain.Event:2"
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    small = float(np.float32(-1e-3))
    assert scalars == [
        (300_000, "train/loss", 2.5),
        (3, "validation/loss", 2.75),
        (3, "validation/x", small),
    ]
    assert all(abs(e.wall_time - time.time()) < 600 for e in events)
    # What an earlier start had measured after step 2 is to be forgotten.
    assert [e.step for e in events if e.session_log.status == SessionLog.START] == [3]


@pytest.mark.slow
def test_a_start_imports_no_torch() -> None:
    """Importing it takes longer than JAX; a run has no use for it."""
    code = "import sys, llm_jax.train.loop; print([m for m in HEAVY if m in sys.modules])"
    heavy = [
        "torch",
        "tensorflow",
        "tensorboardX",
        "transformers",
        "matplotlib",
        "google.cloud.storage",
    ]
    made = subprocess.run(
        [sys.executable, "-c", code.replace("HEAVY", str(heavy))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == "[]\n"
