"""What a start may change: where the run stands stays what it has read, and it is said."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import VOCAB, model_config, optim_config, run_config

from llm_jax.config import CheckpointConfig, ConfigError, EvalConfig, RunConfig, to_json
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.sources import FileSource
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.parallel.mesh import make_mesh
from llm_jax.report.outcome import compare
from llm_jax.runs.history import FILE, beginning, read_history
from llm_jax.train import loop
from llm_jax.train.course import stages
from llm_jax.train.feed import training_batches, training_text
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics

Rows = list[np.ndarray]


def config_of(out: Path, dataset: Path) -> RunConfig:
    return run_config(
        out,
        dataset,
        steps=4,
        model=model_config(vocab_size=VOCAB, num_layers=1, tie_embeddings=True),
        optim=optim_config(schedule="constant"),
        checkpoint=CheckpointConfig(every=2, keep_last=9),
        eval=EvalConfig(every=100, batches=1),
    )


def with_data(config: RunConfig, steps: int, **data: Any) -> RunConfig:
    return dataclasses.replace(config, steps=steps, data=dataclasses.replace(config.data, **data))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    """Inputs of each step that is trained, in order."""
    found: Rows = []
    original = loop.to_device

    def noted(local: dict[str, np.ndarray], *where: Any) -> Any:
        found.append(local["inputs"])
        return original(local, *where)

    monkeypatch.setattr(loop, "to_device", noted)
    yield found


def order_of(config: RunConfig, sequences: int) -> np.ndarray:
    """The first sequences that a run of `config` reads."""
    dataset = TokenDataset.open(config.data.path)
    data = config.data
    batches = dataset.batches(seq_len=data.seq_len, batch_size=8, seed=data.seed)
    made = [one["inputs"] for one in batches.run(0, -(-sequences // 8))]
    return np.concatenate(made)[:sequences]


def metrics_tokens(out: Path) -> dict[int, int]:
    records = read_metrics(out / "metrics.jsonl")
    return {r["step"]: r["tokens"] for r in records if r["split"] == "train"}


def losses(out: Path) -> list[tuple[str, int, float]]:
    records = read_metrics(out / "metrics.jsonl")
    return [(r["split"], r["step"], r["loss"]) for r in records if "loss" in r]


def history(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / FILE).read_text().splitlines()]


@pytest.mark.slow
def test_a_run_whose_batch_and_length_change(
    tmp_path: Path, tiny_dataset: Path, read: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps 1 to 4 read 8 sequences of 16 tokens, 5 and 6 read 16, 7 and 8 read 8 of 32."""
    first = config_of(tmp_path / "run", tiny_dataset)
    train(first)
    capsys.readouterr()
    wide = with_data(first, 6, batch_size=16)
    train(wide)
    said = capsys.readouterr().err
    np.testing.assert_array_equal(np.concatenate(read), order_of(first, 64))
    assert "after step 4: 32 sequences, 512 tokens." in said
    (sentence,) = re.findall(r"^Changed .*$", said, re.MULTILINE)
    assert "data.batch_size 8 → 16" in sentence and "steps 4 → 6" in sentence
    assert "256 tokens instead of 128" in sentence and "1,024 tokens instead of 512" in sentence
    assert "learning rate is 3.00e-03." in said
    longer = with_data(first, 8, batch_size=8, seq_len=32)
    result = train(longer)
    assert (result["sequences"], result["tokens"]) == (80, 1536)
    wanted = [128, 256, 384, 512, 768, 1024, 1280, 1536]
    assert list(metrics_tokens(tmp_path / "run").values()) == wanted
    lines = history(first)
    assert [(one["step"], one["sequences"], one["tokens"]) for one in lines] == [
        (0, 0, 0),
        (4, 32, 512),
        (6, 64, 1024),
    ]
    assert lines[1]["changed"] == {"run.data.batch_size": [8, 16], "run.steps": [4, 6]}
    assert lines[2]["changed"]["run.data.seq_len"] == [16, 32]
    meta = json.loads((Path(result["checkpoint"]) / "meta" / "metadata").read_text())
    fingerprint = TokenDataset.open(tiny_dataset).info["fingerprint"]
    assert meta["data"] == {
        "seed": 0,
        "next_step": 8,
        "sequences": 80,
        "tokens": 1536,
        "fingerprint": fingerprint,
    }
    found = compare(tmp_path / "run")
    assert found["tokens"] == 1536
    assert sum("Changed after step" in warning for warning in found["warnings"]) == 2

    # A start from before the changes repeats them: bitwise, and noted again.
    before = losses(tmp_path / "run")
    rows = [inputs.copy() for inputs in read]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    assert train(longer)["step"] == 8
    after = losses(tmp_path / "run")
    assert after == before
    np.testing.assert_array_equal(np.concatenate(read[8:]), np.concatenate(rows[6:8]))
    assert len(history(first)) == 3


def test_an_epoch_over_a_change_of_length_reads_its_text_once(tiny_dataset: Path) -> None:
    """All of an epoch's steps, from the history alone: 16 tokens, 24 from step 50, 8 from 90."""
    first = with_data(config_of(Path("unused"), tiny_dataset), 10**6)
    dataset = TokenDataset.open(tiny_dataset)
    text, mesh = training_text((dataset,), first), make_mesh(first.parallel)
    made = beginning(first, text)
    tokens = (text.tokens - 1) // 16 * 16
    places: Rows = []
    for step, seq_len, batch in ((0, 16, 8), (50, 24, 16), (90, 8, 8)):
        config = with_data(first, 10**6, seq_len=seq_len, batch_size=batch)
        entry = dataclasses.replace(made.entries[0], step=step, config=loop_config(config))
        made = made.followed_by(entry)
        end = {0: 50, 50: 90, 90: None}[step]
        (stage,) = stages(config, made, [], text)
        last = stage.reading.orders[0].first_rows // batch if end is None else end - step
        training_batches((dataset,), stage, mesh).at(step)
        rows = np.arange(last * batch if end else stage.reading.orders[0].first_rows)
        assert step * batch + stage.offset == 0  # each length has an order of its own
        if stage.reading.orders[0].left is None:
            places.append(stage.reading.orders[0].whole(rows)[:, None] + np.arange(seq_len))
        else:
            where, _, filled = stage.reading.orders[0].pieced(rows)
            places.append(where[~filled])
    found = np.sort(np.concatenate([one.reshape(-1) for one in places]))
    np.testing.assert_array_equal(found, np.arange(tokens))


def loop_config(config: RunConfig) -> dict[str, Any]:
    return json.loads(to_json(config))


@pytest.mark.slow
def test_a_longer_cosine_says_that_the_rate_jumps(
    tmp_path: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = config_of(tmp_path / "run", tiny_dataset)
    first = dataclasses.replace(first, optim=optim_config())
    train(first)
    capsys.readouterr()
    train(dataclasses.replace(first, steps=8))
    said = capsys.readouterr().err
    rates = {
        r["step"]: r["learning_rate"]
        for r in read_metrics(tmp_path / "run" / "metrics.jsonl")
        if r["split"] == "train"
    }
    (a, b) = re.findall(r"learning rate (\S+) → (\S+) at once", said)[0]
    assert float(a) == pytest.approx(3e-4, rel=1e-2)  # the end of the first schedule
    assert float(b) == pytest.approx(rates[5], rel=1e-2) and float(b) > 5 * float(a)
    assert f"--optim.schedule constant --optim.learning-rate {a}" in said
    assert f"next step's learning rate is {b}." in said


@pytest.mark.slow
def test_a_finished_run_is_not_touched(
    tmp_path: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path / "run", tiny_dataset)
    result = train(config)
    held = {
        path: path.read_bytes()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file() and not path.name.startswith("status.")
    }
    capsys.readouterr()
    other = dataclasses.replace(config, optim=optim_config(learning_rate=7e-3))
    again = train(other)
    said = capsys.readouterr().err
    assert "learning_rate 0.003 → 0.007" in said and "finished" in said
    assert {k: again[k] for k in ("step", "loss", "tokens")} == {
        k: result[k] for k in ("step", "loss", "tokens")
    }
    now = {
        path: path.read_bytes()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file() and not path.name.startswith("status.")
    }
    assert now.keys() == held.keys()
    assert [path.name for path in held if now[path] != held[path]] == []


@pytest.mark.slow
def test_another_text_under_the_same_path_is_noticed(
    tmp_path: Path, tiny_dataset: Path, read: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read from its beginning; back on the first one, the run reads on where it left it."""
    shutil.copytree(tiny_dataset, tmp_path / "data")
    first = config_of(tmp_path / "run", tmp_path / "data")
    train(first)
    shutil.rmtree(tmp_path / "data")
    source = FileSource(Path(dataclasses.__file__))
    tokenizer = Tokenizer.load(tiny_dataset / "tokenizer.model")
    spec = BuildSpec(sources=(source, FileSource(Path(shutil.__file__))), tokenizer=tokenizer)
    build(spec, tmp_path / "data", lambda phase, done, total: None)
    capsys.readouterr()
    other = dataclasses.replace(first, steps=6)
    train(other)
    digests = [TokenDataset.open(p).info["fingerprint"] for p in (tiny_dataset, first.data.path)]
    (sentence,) = re.findall(r"^Changed .*$", capsys.readouterr().err, re.MULTILINE)
    assert f"text {digests[0][:12]!r} → {digests[1][:12]!r}" in sentence
    assert "from its beginning" in sentence
    assert history(first)[1]["changed"]["text"] == digests
    np.testing.assert_array_equal(np.concatenate(read[4:]), order_of(other, 16))
    back = with_data(first, 8, path=str(tiny_dataset))
    train(back)
    np.testing.assert_array_equal(np.concatenate(read[6:]), order_of(back, 48)[32:])
    assert read_history(tmp_path / "run", back).tokens(8) == 8 * 8 * 16


@pytest.mark.slow
def test_a_run_of_before_there_was_a_history(
    tmp_path: Path, tiny_dataset: Path, read: Rows
) -> None:
    """Its checkpoints say nothing of what was read: it resumes as that version did."""
    config = config_of(tmp_path / "run", tiny_dataset)
    train(config)
    out = tmp_path / "run"
    measured = losses(out)
    (out / FILE).unlink()
    shutil.rmtree(out / "checkpoints" / "4")
    meta = out / "checkpoints" / "2" / "meta" / "metadata"
    held = json.loads(meta.read_text())
    held["data"] = {"seed": 0, "next_step": 2}
    meta.write_text(json.dumps(held))
    (out / "checkpoints" / "2" / "manifest.json").unlink()
    train(config)
    assert losses(out) == measured
    assert [(one["step"], one["changed"]) for one in history(config)] == [(0, None)]
    np.testing.assert_array_equal(read[2], read[4])


@pytest.mark.slow
def test_a_history_that_is_gone_is_no_silent_change(tmp_path: Path, tiny_dataset: Path) -> None:
    """run.json alone would put the run elsewhere than its checkpoint was."""
    first = config_of(tmp_path / "run", tiny_dataset)
    train(first)
    wide = with_data(first, 6, batch_size=16)
    train(wide)
    (tmp_path / "run" / FILE).unlink()
    with pytest.raises(ConfigError, match=r"had read 64 sequences, .* 96"):
        train(with_data(first, 8, batch_size=16))
