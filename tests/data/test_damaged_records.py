"""Records that a disk or a copy has damaged: found, named in one sentence, and never retried."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.config import DataConfig, to_json
from llm_jax.config.exits import CONFIG
from llm_jax.data.dataset import DamagedRecords, TokenDataset, UnreadableRecords
from llm_jax.launch.cause import classify


@pytest.fixture
def damaged(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the dataset, to be damaged."""
    return Path(shutil.copytree(tiny_dataset, tmp_path / "dataset"))


def shard(folder: Path) -> Path:
    (found,) = (folder / "tokens/1.0.0").glob("*train.array_record*")
    return found


def whole_stream(folder: Path) -> np.ndarray:
    dataset = TokenDataset.open(folder)
    return dataset.read("train", np.array([0]), dataset.num_tokens("train"))


def damage(good: bytes, of: random.Random) -> bytes:
    """One flipped bit, an end cut off, or a page of zeros."""
    data = bytearray(good)
    place = of.randrange(len(data))
    kind = of.randrange(3)
    if kind == 0:
        data[place] ^= 1 << of.randrange(8)
    elif kind == 1:
        del data[place:]
    else:
        data[place : place + 4096] = bytes(len(data[place : place + 4096]))
    return bytes(data)


def test_damage_is_found_or_does_not_matter(damaged: Path) -> None:
    file, of = shard(damaged), random.Random(15)
    good, wanted, found = file.read_bytes(), whole_stream(damaged), 0
    for _ in range(40):
        file.write_bytes(damage(good, of))
        try:
            np.testing.assert_array_equal(whole_stream(damaged), wanted)
        except DamagedRecords as error:
            assert error.exit_code == CONFIG and "\n" not in str(error)
            assert str(damaged) in str(error)
            found += 1
    assert found > 20


def test_a_record_of_another_length_is_damage(damaged: Path, monkeypatch) -> None:
    dataset = TokenDataset.open(damaged)
    whole = dataset.records("train", [0, 1])
    for other in (whole[0][:-1], np.append(whole[0], whole[0][:1])):
        monkeypatch.setattr(dataset, "records", lambda *_, other=other: [other])
        with pytest.raises(DamagedRecords, match=f"one has {len(other)} tokens"):
            dataset.read("train", np.array([0]), 8)


def test_a_disk_that_fails_is_tried_again(damaged: Path, monkeypatch) -> None:
    dataset = TokenDataset.open(damaged)
    good = dataset.records("train", [0])[0]
    reader, tries = dataset._readers["train"], []

    def read(numbers: list[int]) -> list[np.ndarray]:
        tries.append(numbers)
        if len(tries) == 1:
            raise RuntimeError("Reading failed: Input/output error [5]")
        return [good]

    monkeypatch.setattr(reader, "_read", read)
    assert dataset.records("train", [0]) == [good] and len(tries) == 2
    monkeypatch.setattr(reader, "_read", lambda numbers: read(tries.clear() or numbers))
    with pytest.raises(UnreadableRecords) as error:
        dataset.records("train", [0])
    assert error.value.exit_code == 1


@pytest.mark.slow
def test_training_on_a_damaged_record_ends_for_good(damaged: Path, tmp_path: Path) -> None:
    file = shard(damaged)
    data = bytearray(file.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    file.write_bytes(bytes(data))
    config = run_config(
        tmp_path / "run",
        damaged,
        steps=200,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        data=DataConfig(path=str(damaged), seq_len=16, batch_size=8),
    )
    (tmp_path / "run.json").write_text(to_json(config))
    done = subprocess.run(
        [sys.executable, "-m", "llm_jax", "train", str(tmp_path / "run.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == CONFIG, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: The records in {damaged}")
    assert "Traceback" not in done.stderr
    kind, words = classify(done.returncode, done.stderr)
    assert kind == "config" and words.startswith("The records in")
