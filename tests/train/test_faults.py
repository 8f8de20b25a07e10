"""Damaged checkpoints, rollbacks, signals before the first step, and the account of time."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest
from tiny import VOCAB, compute_config, model_config, run_config

from llm_jax.config import CheckpointConfig, EvalConfig, RunConfig
from llm_jax.data.batches import Batches
from llm_jax.runs.history import Text, beginning
from llm_jax.runs.rollbacks import Rollback, read_rollbacks
from llm_jax.runs.starts import Start, accounted, goodput
from llm_jax.train import clock as clock_module
from llm_jax.train import step as step_module
from llm_jax.train.checkpoint import forget_after
from llm_jax.train.course import stages
from llm_jax.train.damage import saved_steps, set_damaged_aside
from llm_jax.train.loop import train
from llm_jax.train.manifest import damage_sentence, first_damage, write_manifest
from llm_jax.train.metrics import read_metrics
from llm_jax.train.rollback import Diverged


def checkpoint(folder: Path, step: int, note: str = "{}") -> Path:
    """A folder that looks like a whole checkpoint of two files and Orbax's note."""
    made = folder / str(step)
    (made / "params" / "d").mkdir(parents=True)
    (made / "params" / "d" / "one").write_bytes(b"1" * 100)
    (made / "params" / "two").write_bytes(b"2" * 100)
    (made / "_CHECKPOINT_METADATA").write_text(note)
    write_manifest(made)
    return made


def damage(made: Path, how: str) -> str:
    """Does it, and returns the words for it."""
    file = made / "params" / "two"
    if how == "short":
        file.write_bytes(b"2" * 99)
        return "params/two has 99 bytes instead of 100"
    if how == "flipped":
        file.write_bytes(b"2" * 50 + b"3" + b"2" * 49)
        return "params/two has another checksum"
    if how == "missing":
        file.unlink()
        return "params/two is missing"
    if how == "note":
        (made / "_CHECKPOINT_METADATA").write_text("{ }")
        return "_CHECKPOINT_METADATA has 3 bytes instead of 2"
    (made / "manifest.json").write_text('{"params/two": 1}')
    return "its manifest.json cannot be read"


@pytest.mark.parametrize("how", ["short", "flipped", "missing", "note", "manifest"])
def test_damage_is_found_and_set_aside(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (5, 10, 15):
        checkpoint(folder, step)
    (fine,) = set_damaged_aside(folder)
    assert fine.startswith("Checkpoint 15 is undamaged: 1 process read 0.0 MB each")
    words = [damage(folder / str(step), how) for step in (15, 10)]
    assert damage_sentence(folder / "15", first_damage(folder / "15") or 0) == words[0]
    if how != "manifest":  # one of two hosts finds it, the one that reads that file
        place = 0 if how == "note" else 2
        found = [first_damage(folder / "15", host, 2) for host in (0, 1)]
        assert found == ([place, None] if how == "note" else [None, place])
    *notes, last = set_damaged_aside(folder)
    assert last.startswith("Checkpoint 5 is undamaged: ")
    assert [note.split(":")[0] for note in notes] == [
        f"Checkpoint {step} is damaged ({word})" for step, word in zip((15, 10), words, strict=True)
    ]
    assert saved_steps(folder) == [5]
    assert sorted(p.name for p in (tmp_path / "damaged").iterdir()) == ["10", "15"]


def test_orbax_notes_that_it_cannot_read_are_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    notes = {5: "[]", 10: "{}", 15: '{"item_handlers": 3}', 20: "no JSON, which Orbax ignores"}
    for step, note in notes.items():
        checkpoint(folder, step, note)
    fine, *said = set_damaged_aside(folder)
    assert fine.startswith("Checkpoint 20 is undamaged: ")
    assert saved_steps(folder) == [20, 10]
    assert [line.split(" is damaged")[0] for line in said] == ["Checkpoint 15", "Checkpoint 5"]
    assert all("_CHECKPOINT_METADATA" in line and "checkpoint 20 is used" in line for line in said)


def test_a_checkpoint_without_a_manifest_is_used_and_said(tmp_path: Path) -> None:
    (checkpoint(tmp_path / "checkpoints", 3) / "manifest.json").unlink()
    (note,) = set_damaged_aside(tmp_path / "checkpoints")
    assert note == "Checkpoint 3 has no manifest.json: it is used unchecked."
    assert saved_steps(tmp_path / "checkpoints") == [3]


def test_forgetting_checkpoints(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        checkpoint(tmp_path, step)
    assert forget_after(tmp_path, 5) == 4
    assert saved_steps(tmp_path) == [4, 2]
    assert forget_after(tmp_path, 1) == 0


def test_time_is_accounted_over_starts() -> None:
    starts = [
        Start(0, 100, first=0, step=10, seconds={"compile": 50, "step": 40, "save": 10}),
        # Steps 9 and 10 were lost, and 30 s passed.
        Start(130, 200, first=8, step=8, seconds={"compile": 70}),
        Start(210, 300, first=8, step=20, seconds={"compile": 10, "step": 80}),
    ]
    total = accounted(starts)
    assert total == {
        "productive": pytest.approx(40 * 0.8 + 80),
        "lost": pytest.approx(8),
        "idle": 40,
        "compile": 130,
        "save": 10,
    }
    assert sum(total.values()) == 300
    assert goodput(starts) == pytest.approx(112 / 300)
    assert accounted([]) == {"productive": 0, "lost": 0, "idle": 0}


@pytest.mark.parametrize(
    ("seconds", "processes", "most"),
    [(0.0, 1, 101), (0.1, 1, 21), (10.0, 1, 5), (0.0, 128, 26), (0.1, 2048, 3)],
)
def test_slow_storage_is_written_to_less_often(
    seconds: float, processes: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 s of steps, on storage where each report takes `seconds`, by one of several processes."""
    now = [0.0]
    written: list[float] = []

    def write(out: Path, starts: list[Start]) -> None:
        now[0] += seconds
        written.append(now[0])

    fake = SimpleNamespace(perf_counter=lambda: now[0], time=lambda: now[0])
    monkeypatch.setattr(clock_module, "time", fake)
    monkeypatch.setattr(clock_module, "write_starts", write)
    clock = clock_module.Clock(tmp_path, 0, processes)
    clock.begin(0, "1 × cpu")
    step = 0
    while now[0] < 100:
        now[0] += 0.05
        step += 1
        clock.stepped(step)
    assert most * 0.7 < len(written) <= most
    assert json.loads((tmp_path / "status.0.json").read_text())["step"] > 0
    if seconds == 0.1 and processes == 1:
        assert sum(seconds for _ in written) / now[0] <= 0.025


def rows_read(config: RunConfig, backs: list[Rollback]) -> list[int]:
    """The first row of the order that each step reads."""
    text = Text("f", 10_000)
    made = stages(config, beginning(config, text), backs, text)
    size = [stage.config.data.batch_size for stage in made]
    return [
        step * B + stage.offset
        for B, stage in zip(size, made, strict=True)
        for step in range(stage.first, stage.end)
    ]


def test_rollbacks_leave_batches_out() -> None:
    backs = [Rollback(4, 3, "x", 24), Rollback(4, 1, "y", 8), Rollback(6, 10, "z", 80)]
    config = run_config(steps=8)
    assert rows_read(config, backs) == [8 * n for n in (0, 1, 2, 3, 8, 9, 20, 21)]
    old = [dataclasses.replace(back, sequences=None) for back in backs]  # an older file
    assert rows_read(config, old) == rows_read(config, backs)


def test_a_rollback_within_a_ramp() -> None:
    """Steps 0 to 3 read 4 sequences, then 8; two batches of 4 are left out at step 2."""
    data = dataclasses.replace(run_config().data, ramp="4:4")
    config = run_config(steps=6, data=data, compute=compute_config(accumulate=2))
    assert rows_read(config, [Rollback(2, 2, "x", 8)]) == [0, 4, 16, 20, 24, 32]
    # Where the record counts batches, its run has left out 8 more where the batch doubled.
    assert rows_read(config, [Rollback(2, 2, "x")]) == [0, 4, 16, 20, 32, 40]


IN_C = """
import hashlib, sys
from llm_jax.train.stop import Stop
with Stop() as stop, stop.leaving_at_once():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # as long as a large compilation
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_while_it_compiles(number: int, code: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", IN_C], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout and child.stdout.readline() == "ready\n"
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == code
    assert "stopped before the first step: there is nothing to save" in err


SLOW_TO_SAY = """
import hashlib, os, sys, time
from llm_jax.train.stop import Stop
class Slow:
    def write(self, text): time.sleep(1); sys.__stderr__.write(text)
    def flush(self): sys.__stderr__.flush()
sys.stderr = Slow()
sys.excepthook = lambda *raised: os._exit(1)
with Stop() as stop, stop.leaving_at_once():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**20)  # ends before the message is written
    while True: pass
"""


@pytest.mark.slow
def test_one_interrupt_is_not_taken_for_two() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_SAY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout and child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=120)
    assert child.returncode == 130


@pytest.mark.slow
def test_too_many_skipped_steps_go_back(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches 6, 7 and 8 are bad; the run is that of the same data without batches 6, 7, 8."""
    mark, bad, run, loss_fn = 10**6, (6, 7, 8), Batches.run, step_module.loss_fn

    def marked(self: Batches, first: int, count: int) -> Any:
        made = run(self, first, count)
        for number, batch in enumerate(made, first):
            place = number + self._rows[0] // self.batch_size  # in the order, not in the run
            if self.seed is not None and place in bad:
                batch["positions"] = batch["positions"] + mark
        return made

    def poisoned(params: Any, batch: Any, weight: Any, config: Any) -> Any:
        wrong = jnp.max(batch["positions"]) >= mark
        batch = batch | {"positions": batch["positions"] % mark}
        return loss_fn(params, batch, weight * jnp.where(wrong, jnp.nan, 1.0), config)

    monkeypatch.setattr(Batches, "run", marked)
    monkeypatch.setattr(step_module, "loss_fn", poisoned)
    config = run_config(
        tmp_path / "run",
        tiny_dataset,
        steps=12,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        checkpoint=CheckpointConfig(every=2),
        eval=EvalConfig(every=100, batches=1),
    )
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, skip_limit=3))
    with pytest.raises(Diverged, match=r"checkpoint 6 .* 3 batches"):
        train(config)
    out = tmp_path / "run"
    assert read_rollbacks(out) == [Rollback(6, 3, "the loss is nan", 24)]
    assert saved_steps(out / "checkpoints")[0] == 6
    result = train(config)
    assert (result["step"], result["exit_code"]) == (12, 0)
    assert result["seconds"]["lost"] > 0
    records = list(read_metrics(out / "metrics.jsonl"))
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 13))
    assert not [r for r in records if r["split"] == "skipped"]  # forgotten with what was undone
    # The newest checkpoint is damaged: the next start says so, and repeats the steps since.
    victim = next(p for p in (out / "checkpoints/12/params").rglob("*") if p.stat().st_size > 50)
    victim.write_bytes(victim.read_bytes()[:-1])
    before = {r["step"]: r["loss"] for r in records if r["split"] == "train"}
    assert train(config)["step"] == 12
    assert (out / "damaged" / "12").is_dir()
    after = {
        r["step"]: r["loss"] for r in read_metrics(out / "metrics.jsonl") if r["split"] == "train"
    }
    assert after == before
    assert json.loads((out / "checkpoints/12/manifest.json").read_text())
