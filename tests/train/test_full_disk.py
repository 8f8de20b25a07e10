"""A disk that fills while the run is saving: one sentence, and the checkpoints before it are whole.

The disk is a real one, a tmpfs of a few megabytes; mounting it takes root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.config import CheckpointConfig, DataConfig, to_json
from llm_jax.train.load import load_run
from llm_jax.train.metrics import read_metrics

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_the_old_checkpoint_survives_and_the_run_goes_on(
    small_disk: Path, tiny_dataset: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = small_disk / "run"
    config = run_config(
        out,
        tiny_dataset,
        steps=24,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        data=DataConfig(path=str(tiny_dataset), seq_len=16, batch_size=8),
        checkpoint=CheckpointConfig(every=2, keep_last=100),
    )
    path = tmp_path / "run.json"
    path.write_text(to_json(config))
    command = [sys.executable, "-m", "llm_jax", "train", str(path), "--json"]
    full = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert full.returncode == 1, full.stderr
    assert full.stdout == ""
    last = full.stderr.splitlines()[-1]
    assert last.startswith(f"error: The run in {out} could not read or write a file (")
    # TensorStore's own threads may still complain of the event loop that Orbax has closed.
    assert "llm_jax/train/" not in full.stderr
    assert full.stderr.count("error: ") == 1
    survivor = load_run(out)
    assert survivor.step % 2 == 0
    assert "No space left on device" in last
    assert f"; its checkpoint {survivor.step} is intact" in last

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f" {out} after step {survivor.step}:" in again.stderr
    steps = [r["step"] for r in read_metrics(out / "metrics.jsonl") if r["split"] == "train"]
    assert steps == list(range(1, 25))

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = subprocess.run(command, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (1, "")
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"error: The run in {out} could not read or write a file (")
    assert "Read-only file system" in last and "its checkpoint 24 " in last
