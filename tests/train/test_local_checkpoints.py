"""Checkpoints on the host's own disk: a run that goes on from one is the run never stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.config import CheckpointConfig, ConfigError, EvalConfig, ParallelConfig, RunConfig
from llm_jax.train.loop import train
from llm_jax.train.metrics import Log, read_metrics


class Crash(Exception):
    """Stands for whatever ends a trainer."""


@pytest.fixture
def config(tmp_path: Path, tiny_dataset: Path) -> RunConfig:
    """Eight steps; checkpoints after step 4 in the folder, after every step on the disk."""
    return run_config(
        tmp_path / "run",
        tiny_dataset,
        steps=8,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        checkpoint=CheckpointConfig(every=4, local=str(tmp_path / "disk"), local_every=1),
        eval=EvalConfig(every=100, batches=1),
    )


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> list[float]:
    """Losses of the run that nothing happens to, and that saves in its folder alone."""
    out = tmp_path_factory.mktemp("calm") / "run"
    train(
        run_config(
            out,
            tiny_dataset,
            steps=8,
            model=model_config(vocab_size=VOCAB, num_layers=1),
            eval=EvalConfig(every=100, batches=1),
        )
    )
    return losses(out)


def losses(out: Path | str) -> list[float]:
    return [r["loss"] for r in read_metrics(Path(out) / "metrics.jsonl") if r["split"] == "train"]


def crash_after(step: int, config: RunConfig) -> None:
    """Trains until after `step`, where the trainer fails."""

    def advance(log: Log, now: int) -> None:
        if now == step:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "advance", advance)
        with pytest.raises(Crash):
            train(config)


def on_disk(config: RunConfig) -> list[int]:
    found = Path(config.checkpoint.local or "").glob("*/0/[0-9]*")
    return sorted(int(path.name) for path in found)


def damage(config: RunConfig, step: int) -> None:
    (file,) = Path(config.checkpoint.local or "").glob(f"*/0/{step}/shards/*")
    held = bytearray(file.read_bytes())
    held[-1] ^= 0xFF
    file.write_bytes(held)


@pytest.mark.slow
def test_it_goes_on_from_the_disk(
    config: RunConfig, calm: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    crash_after(7, config)
    assert on_disk(config) == [6, 7]
    assert sorted(p.name for p in (Path(config.out) / "checkpoints").iterdir()) == ["4"]
    result = train(config)
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "Checkpoint 7 on the hosts' own disks is used: the run's folder has checkpoint 4." in said
    )
    assert result["step"] == 8 and losses(config.out) == calm
    starts = json.loads((Path(config.out) / "time.json").read_text())
    assert [(s["first"], s["step"]) for s in starts] == [(0, 7), (7, 8)]
    assert result["seconds"]["lost"] == 0
    assert on_disk(config) == []  # the run's folder has it all


@pytest.mark.slow
def test_before_the_first_checkpoint_in_the_folder(config: RunConfig, calm: list[float]) -> None:
    crash_after(2, config)
    crash_after(3, config)
    starts = json.loads((Path(config.out) / "time.json").read_text())
    assert [s["first"] for s in starts] == [0, 2]
    train(config)
    assert losses(config.out) == calm


@pytest.mark.slow
@pytest.mark.parametrize(("damaged", "first"), [((7,), 6), ((7, 6), 4)])
def test_a_damaged_one_is_not_used(
    damaged: tuple[int, ...],
    first: int,
    config: RunConfig,
    calm: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    crash_after(7, config)
    for step in damaged:
        damage(config, step)
    train(config)
    said = capsys.readouterr().err
    assert said.count("state.safetensors has another checksum): it is not used.") == len(damaged)
    assert f"after step {first}: " in said
    assert losses(config.out) == calm


@pytest.mark.slow
def test_another_mesh_goes_on_from_the_folder(config: RunConfig, calm: list[float]) -> None:
    crash_after(7, config)
    size = jax.device_count()
    moved = dataclasses.replace(config, parallel=ParallelConfig(data=size // 2, fsdp=2))
    train(moved)
    starts = json.loads((Path(config.out) / "time.json").read_text())
    assert [s["first"] for s in starts] == [0, 4]
    assert losses(config.out) == pytest.approx(calm, rel=1e-5)


@pytest.mark.slow
def test_a_new_run_of_the_same_name_finds_nothing(config: RunConfig, calm: list[float]) -> None:
    crash_after(3, config)
    shutil.rmtree(config.out)
    assert on_disk(config) == [2, 3]
    train(config)
    assert losses(config.out) == calm


@pytest.mark.slow
def test_a_disk_that_fails_costs_nothing_else(
    config: RunConfig, calm: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(config.checkpoint.local or "").write_text("a file, where a folder should be")
    assert train(config)["step"] == 8
    said = capsys.readouterr().err
    assert said.count("warning: no more checkpoints in") == 1
    assert "Not a directory" in said
    assert "): the run continues" in said
    assert losses(config.out) == calm


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"local": "/tmp/x"}, "set both or neither"),
        ({"local_every": 5}, "set both or neither"),
        ({"local": "/tmp/x", "local_every": 200}, "local_every is 200, but checkpoint"),
        ({"local": "/tmp/x", "local_every": 0}, "checkpoint.local_every is 0: it must be above 0"),
    ],
)
def test_mistakes_are_one_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CheckpointConfig(**fields)
