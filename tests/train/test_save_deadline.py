"""How long a save may take, how long it holds the loop, and how it ends when it fails."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.experimental import multihost_utils
from tiny import VOCAB, model_config, run_config

from llm_jax.config import CheckpointConfig
from llm_jax.parallel.mesh import make_mesh
from llm_jax.runs.slow_save import SlowSave, keep_slow_save
from llm_jax.train import distributed, sums
from llm_jax.train.damage import saved_steps
from llm_jax.train.failures import FileFailure, no_orbax_noise
from llm_jax.train.loop import _Run, train
from llm_jax.train.manager import Barrier, Manager
from llm_jax.train.manifest import write_manifest
from llm_jax.train.metrics import read_metrics
from llm_jax.train.save_speed import ASSUMED, SHORTEST, SLACK, save_speed
from llm_jax.train.state import abstract_state
from llm_jax.train.sums import NOTE


@pytest.mark.slow
def test_a_time_out_is_called_one(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = ocp.CheckpointManager.wait_until_finished

    def late(manager: ocp.CheckpointManager) -> None:
        finished(manager)
        if manager.latest_step() == 4:
            raise TimeoutError("Timed out while waiting for async_commit_complete barrier.")

    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", late)
    out = tmp_path / "run"
    config = run_config(
        out,
        tiny_dataset,
        steps=8,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        checkpoint=CheckpointConfig(every=2),
    )
    with pytest.raises(FileFailure) as failed:
        train(config)
    assert str(failed.value) == (
        f"The run in {out} timed out while it read or wrote a file (Timed out while waiting for "
        "async_commit_complete barrier.); its checkpoint 4 is intact: check for slow or hanging "
        "storage and hosts, then run the same command again to resume."
    )
    assert failed.value.exit_code == 1


def saved(
    out: Path, step: int, seconds: float, size: int = 10**6, processes: int = 4, note: str = ""
) -> None:
    """A checkpoint of `size` bytes that took `seconds` to save."""
    folder = out / "checkpoints" / str(step)
    for process in range(processes):
        (folder / "params" / f"ocdbt.process_{process}").mkdir(parents=True)
    times = {"init_timestamp_nsecs": 10**18, "commit_timestamp_nsecs": 10**18 + int(seconds * 1e9)}
    note = note or json.dumps({"item_handlers": {}} | times)
    (folder / NOTE).write_text(note)
    (folder / "params" / "data").write_bytes(bytes(size - len(note)))
    write_manifest(folder)


def state_of(size: int) -> dict[str, Any]:
    return {"params": {"w": jax.ShapeDtypeStruct((size // 4,), np.float32)}}


def test_the_deadline_follows_from_bytes_and_measured_speed(tmp_path: Path) -> None:
    big = state_of(80_000_000_000)
    assumed = save_speed(tmp_path, big)
    assert not assumed.measured
    assert (assumed.share, assumed.rate) == (8e10, ASSUMED)
    assert assumed.deadline == SLACK * 8e10 / ASSUMED == 12_800
    assert "80,000.0 MB per process at 25.0 MB/s (assumed" in str(assumed)
    saved(tmp_path, 10, 0.01)  # 25 MB/s for each of 4 processes
    saved(tmp_path, 20, 0.05)  # 5 MB/s
    saved(tmp_path, 30, 0.02, note='{"item_handlers": {}}')  # does not tell its times
    measured = save_speed(tmp_path, big)
    assert measured.measured
    assert measured.rate == pytest.approx(5e6)
    assert measured.deadline == pytest.approx(SLACK * 8e10 / 5e6, abs=1)
    assert measured.seconds == pytest.approx(16_000)
    assert "5.0 MB/s (measured), deadline 64,000 s" in str(measured)
    assert save_speed(tmp_path, state_of(4000)).deadline == SHORTEST


def test_a_start_after_a_time_out_waits_longer(tmp_path: Path) -> None:
    saved(tmp_path, 10, 0.05)
    keep_slow_save(tmp_path, SlowSave(20, 5000))
    assert save_speed(tmp_path, state_of(4000)).deadline == 10_000
    saved(tmp_path, 20, 0.05)  # it went well the second time
    assert save_speed(tmp_path, state_of(4000)).deadline == SHORTEST
    keep_slow_save(tmp_path, SlowSave(30, 5000))
    (tmp_path / "slow_save.json").write_text('{"step": "x"}')
    assert save_speed(tmp_path, state_of(4000)).deadline == SHORTEST


@pytest.mark.parametrize(
    ("error", "cause", "lost"),
    [
        (TimeoutError("barrier"), RuntimeError("UNAVAILABLE: tasks are unhealthy"), True),
        (TimeoutError("barrier"), RuntimeError("DEADLINE_EXCEEDED: barrier timed out"), False),
        (TimeoutError("timed out after 30 s"), None, False),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"), None, True),
        (ValueError("Destination exists"), None, False),
        (OSError(28, "No space left on device"), None, False),
    ],
)
def test_a_lost_process_is_no_time_out(
    error: Exception, cause: Exception | None, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    error.__cause__ = cause
    assert not distributed.is_peer_lost(error)  # one process has no other to lose
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert distributed.is_peer_lost(error) is lost


def test_a_failed_part_of_a_save_waits_for_nobody() -> None:
    """Orbax waits for the others in a `finally`, on a thread of its own."""
    waited: list[str] = []
    barrier = Barrier()
    barrier._wait = lambda key, timeout_ms: waited.append(key)
    raised: list[BaseException] = []

    def fails() -> None:
        try:
            try:
                raise OSError(5, "Input/output error")
            finally:
                barrier(key="end", timeout_ms=600_000)
        except OSError as error:
            raised.append(error)

    def goes_well() -> None:
        barrier(key="begin", timeout_ms=1000)

    for work in (goes_well, fails):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert waited == ["begin"]
    assert raised == [barrier.failure]
    try:
        raise KeyError("of the program that trains")
    except KeyError:
        barrier(key="save", timeout_ms=1000)  # a save inside of its handler is fine
    assert waited == ["begin", "save"]


@pytest.mark.slow
def test_a_failed_write_ends_the_run_at_the_next_step(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next save: here is none until step 100,000."""

    def full(folder: Path, process: int) -> dict:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sums, "own_sums", full)
    config = run_config(
        tmp_path / "run",
        tiny_dataset,
        steps=100_000,
        log_every=100_000,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        checkpoint=CheckpointConfig(every=77),
    )
    monkeypatch.setattr(_Run, "_due", lambda run, step, every: every == 77 and step == 3)
    with pytest.raises(FileFailure, match="No space left on device"):
        train(config)
    assert json.loads((tmp_path / "run" / "status.0.json").read_text())["step"] < 10_000
    assert not saved_steps(tmp_path / "run" / "checkpoints")


def test_orbax_does_not_ask_when_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the training step for a count, it would move the step at which all processes stop."""

    def asked(count: int) -> bool:
        raise AssertionError(f"asked with {count}")

    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    manager = Manager.__new__(Manager)
    assert manager.reached_preemption(100_000) is False


@pytest.mark.slow
def test_each_save_says_how_long_it_held_the_loop(
    tmp_path: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(
        tmp_path / "run",
        tiny_dataset,
        steps=4,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        checkpoint=CheckpointConfig(every=2),
    )
    for steps in (4, 6):
        train(dataclasses.replace(config, steps=steps))
    records = list(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    saves = [r for r in records if r["split"] == "save"]
    assert [r["step"] for r in saves] == [2, 4, 6]
    assert all(r["save_hold_seconds"] > 0 and r["save_wait_seconds"] >= 0 for r in saves)
    assert {r["save_deadline_seconds"] for r in saves} == {SHORTEST}
    size = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(abstract_state(config, make_mesh(config.parallel)))
    )
    assert {r["save_bytes_per_process"] for r in saves} == {size}
    said = capsys.readouterr().err
    assert said.count("(assumed: no earlier start has saved), deadline 600 s; held the loop") == 2
    assert said.count("(measured), deadline 600 s; held the loop") == 1
    assert "Checkpoint 4 is undamaged: 1 process read " in said


@pytest.mark.parametrize(
    ("path", "level", "traceback", "shown"),
    [
        ("orbax/checkpoint/x.py", logging.WARNING, False, False),
        ("orbax/checkpoint/x.py", logging.INFO, False, False),
        ("orbax/checkpoint/x.py", logging.ERROR, False, True),
        ("orbax/checkpoint/x.py", logging.ERROR, True, False),  # raised as well
        ("grain/x.py", logging.WARNING, False, True),
    ],
)
def test_of_orbax_errors_alone_are_shown(
    path: str, level: int, traceback: bool, shown: bool
) -> None:
    info = (OSError, OSError("x"), None) if traceback else None
    record = logging.LogRecord("absl", level, f"/site-packages/{path}", 1, "words", (), info)
    assert no_orbax_noise(record) is shown
