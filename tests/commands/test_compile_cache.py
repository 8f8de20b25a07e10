"""What XLA compiled is kept in the user's cache folder, and gives the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.commands.compile_cache import environment
from llm_jax.config import CheckpointConfig, DataConfig, to_json


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_the_cache_is_in_the_users_cache_folder_and_bounded(
    nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = environment()
    assert made["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "llm_jax" / "compiled")
    assert int(made["JAX_COMPILATION_CACHE_MAX_SIZE"]) == 2 << 30
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1")  # one of several processes
    assert environment() == {}
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # the user's word
    assert environment() == {}


def test_a_cache_folder_that_is_a_file_is_said(
    nothing_set: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert environment() == {}
    assert capsys.readouterr().err.count("JAX_COMPILATION_CACHE_DIR") == 1


@pytest.mark.slow
def test_a_second_start_compiles_nothing_and_computes_the_same(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    """Also where entries of the cache are damaged: they are compiled again, and said."""
    cache = tmp_path / "llm_jax" / "compiled"
    losses, kept = [], []
    env = {name: x for name, x in os.environ.items() if not name.startswith("JAX_")}
    env |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    for name in ("first", "second", "damaged"):
        config = run_config(
            tmp_path / name,
            tiny_dataset,
            steps=3,
            model=model_config(vocab_size=VOCAB),
            data=DataConfig(path=str(tiny_dataset), seq_len=16, batch_size=8),
            checkpoint=CheckpointConfig(every=3),
        )
        path = tmp_path / f"{name}.json"
        path.write_text(to_json(config))
        if name == "damaged":
            for entry in cache.glob("*-cache"):
                entry.write_bytes(entry.read_bytes()[:100])
        command = [sys.executable, "-m", "llm_jax", "train", str(path), "--json"]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        losses.append([record["loss"] for record in records if record["split"] != "save"])
        kept.append({entry.name for entry in cache.glob("*-cache")})
        assert ("persistent compilation cache" in done.stderr) == (name == "damaged"), done.stderr
    assert kept[0] and kept[0] == kept[1] == kept[2]
    assert losses[0] == losses[1] == losses[2]
