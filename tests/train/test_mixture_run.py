"""A run that reads a mixture: what it reads, its losses by source, resumes, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import VOCAB, compute_config, model_config, run_config

from llm_jax.config import (
    Amount,
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    MixtureConfig,
    MixtureSource,
    MixtureStage,
    RunConfig,
    UserError,
    to_dict,
)
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers import training
from llm_jax.runs.history import Entry, History, Text, beginning, mixed_text
from llm_jax.runs.lineage import saved_lineage
from llm_jax.train.changes import resume
from llm_jax.train.course import segments, stages
from llm_jax.train.lineage import lineage_at
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics

STEPS, B, T = 10, 8, 32
STAGES = ((0.0, {"web": 5.0, "code": 3.0, "books": 2.0}), (0.6, {"code": 1.0, "books": 3.0}))


def mixture(
    folders: dict[str, Path], *parts: tuple[float, dict[str, float]], **caps: float
) -> MixtureConfig:
    return MixtureConfig(
        sources=tuple(
            MixtureSource(name=name, path=str(path), max_epochs=caps.get(name))
            for name, path in folders.items()
        ),
        stages=tuple(
            MixtureStage(
                start=start, read=tuple(Amount(source=n, weight=w) for n, w in read.items())
            )
            for start, read in parts
        ),
    )


def config_of(out: Path, mixed: MixtureConfig, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "steps": STEPS,
        "model": model_config(vocab_size=VOCAB, num_layers=1),
        "data": DataConfig(path="", mixture=mixed, seq_len=T, batch_size=B),
        "checkpoint": CheckpointConfig(every=3, keep_last=9),
        "eval": EvalConfig(every=5, batches=2),
    }
    return run_config(out, **(fields | changes))


def records(out: Path, split: str) -> dict[int, dict[str, Any]]:
    return {r["step"]: r for r in read_metrics(out / "metrics.jsonl") if r["split"] == split}


def losses(out: Path) -> dict[int, float]:
    return {step: record["loss"] for step, record in records(out, "train").items()}


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, three_sources: dict[str, Path]
) -> tuple[RunConfig, dict[str, Any]]:
    out = tmp_path_factory.mktemp("mixed") / "run"
    config = config_of(out, mixture(three_sources, *STAGES))
    return config, train(config)


@pytest.mark.slow
def test_losses_by_source_make_the_loss_in_the_run_s_shares(
    whole: tuple[RunConfig, dict[str, Any]],
) -> None:
    config, result = whole
    last = records(Path(config.out), "validation")[STEPS]
    assert last["loss"] == result["loss"]
    # Six steps of 50/30/20 and four of 0/25/75.
    shares = {"web": 0.3, "code": 0.28, "books": 0.42}
    mean = sum(share * last[f"loss/{name}"] for name, share in shares.items())
    assert last["loss"] == pytest.approx(mean, rel=1e-6)
    assert len({last[f"loss/{name}"] for name in shares}) == 3
    assert all(0 < last[f"bits_per_byte/{name}"] < 20 for name in shares)


@pytest.mark.slow
def test_the_lineage_counts_what_was_read(
    whole: tuple[RunConfig, dict[str, Any]], three_sources: dict[str, Path]
) -> None:
    config, _ = whole
    out = Path(config.out)
    lineage = saved_lineage(out, STEPS)
    assert lineage is not None and lineage == saved_lineage(out, None) == lineage_at(out, STEPS)
    names = {digest: text["name"] for digest, text in lineage["texts"].items()}
    read = [
        {names[one["text"]]: one["tokens"] // T for one in stage["read"]}
        for stage in lineage["stages"]
    ]
    assert [(s["first"], s["end"], s["stage"]) for s in lineage["stages"]] == [
        (0, 6, 1),
        (6, 10, 2),
    ]
    for found, wanted in zip(
        read, ({"web": 24, "code": 14.4, "books": 9.6}, {"code": 8, "books": 24}), strict=True
    ):
        assert found == pytest.approx(wanted, abs=1.5) and sum(found.values()) == sum(
            wanted.values()
        )
    assert lineage["tokens"] == STEPS * B * T and lineage["began"] is None
    web = lineage["texts"][TokenDataset.open(three_sources["web"]).info["fingerprint"]]
    assert {one["licence"] for one in web["sources"]} == {"PSF-2.0"}
    half = saved_lineage(out, 3)
    assert half is not None and [stage["end"] for stage in half["stages"]] == [3]
    # A source goes on where the stage before left it.
    rows: dict[str, list[list[int]]] = {}
    for stage in lineage["stages"]:
        for one in stage["read"]:
            rows.setdefault(names[one["text"]], []).append(one["rows"])
    assert rows["books"][0][1] == rows["books"][1][0] and rows["code"][0][0] == 0


@pytest.mark.slow
def test_a_run_from_an_older_checkpoint_is_bitwise_the_same(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path
) -> None:
    """Twice from a random checkpoint: before, in or after the change of the shares."""
    config, _ = whole
    out = tmp_path / "run"
    shutil.copytree(config.out, out)
    again = dataclasses.replace(config, out=str(out))
    for step in random.SystemRandom().sample((3, 6, 9), 2):
        print("again from step", step)
        for later in (s for s in (3, 6, 9, 10) if s > step):
            shutil.rmtree(out / "checkpoints" / str(later), ignore_errors=True)
        train(again)
        assert losses(out) == losses(Path(config.out))
        for name in ("loss", "loss/web", "bits_per_byte/books"):
            first, second = (records(Path(o), "validation")[STEPS] for o in (config.out, out))
            assert first[name] == second[name]


def text_of(sizes: dict[str, int]) -> Text:
    return mixed_text([Text(f"text of {name}", n, name=name) for name, n in sizes.items()])


@pytest.mark.slow
def test_no_window_of_an_epoch_is_read_twice_over_changes() -> None:
    """A ramp, two stages, another weight at step 20 and another length at step 30."""
    folders = {"a": Path("a"), "b": Path("b")}
    text = text_of({"a": 16 * 400 + 1, "b": 16 * 90 + 1})
    mixed = mixture(folders, (0, {"a": 3.0, "b": 1.0}), (0.25, {"a": 1.0, "b": 1.0}))
    first = config_of(
        Path("unused"),
        mixed,
        steps=40,
        compute=compute_config(accumulate=2),
        data=DataConfig(path="", mixture=mixed, seq_len=16, batch_size=8, ramp="4:5"),
    )
    weighted = dataclasses.replace(
        first.data, ramp=None, mixture=mixture(folders, (0, {"a": 4.0, "b": 1.0}))
    )
    history = beginning(first, text)
    for step, data in ((20, weighted), (30, dataclasses.replace(weighted, seq_len=8))):
        config = dataclasses.replace(first, data=data)
        history = history.followed_by(Entry(step, to_dict(config), text))
    read: dict[str, list[np.ndarray]] = {"a": [], "b": []}
    made = list(segments(history, [], text, 40))
    for segment in made:
        for source, (part, order) in enumerate(
            zip(text.parts, segment.reading.orders, strict=True)
        ):
            rows = np.arange(
                segment.places(segment.first)[source], segment.places(segment.end)[source]
            )
            if order.left is None:
                places = order.whole(rows)[:, None] + np.arange(order.seq_len)
            else:
                places, _, filled = order.pieced(rows)
                places = places[~filled]
            read[part.name].append(np.asarray(places).reshape(-1))
    for name, places in read.items():
        counts = Counter(np.concatenate(places).tolist())
        assert set(counts.values()) == {1}, name
    tokens = {name: sum(len(one) for one in places) for name, places in read.items()}
    # Sequences: 5 steps of 4 and 5 of 8 at 3:1, 10 of 8 at 1:1, 10 of 8 and 10 of 8 halves at 4:1.
    assert tokens["a"] == pytest.approx(16 * (45 + 40 + 64 + 32), abs=32)
    assert tokens["a"] + tokens["b"] == history.tokens(40) == 16 * (60 + 80 + 80 + 40)


@pytest.mark.slow
def test_a_dataset_alone_is_read_on_when_a_mixture_with_it_begins() -> None:
    alone, mixed = (
        Text("x", 1601),
        mixed_text([Text("x", 1601, name="x"), Text("y", 1601, name="y")]),
    )
    plain = config_of(
        Path("unused"),
        mixture({"x": Path("x")}, (0, {"x": 1.0})),
        data=DataConfig(path="x", seq_len=16, batch_size=4),
    )
    both = mixture({"x": Path("x"), "y": Path("y")}, (0, {"x": 1.0, "y": 1.0}))
    later = dataclasses.replace(plain, data=dataclasses.replace(plain.data, path="", mixture=both))
    history = History((Entry(0, to_dict(plain), alone), Entry(5, to_dict(later), mixed)))
    (stage,) = stages(later, history, [], mixed)
    assert stage.reading.starts == (20, 0)
    assert stage.reading.places(10 * 4 + stage.offset) == (30, 10)


@pytest.mark.slow
def test_other_shares_are_measured_on_the_same_batches(tmp_path: Path) -> None:
    folders, text = {"a": Path("a"), "b": Path("b")}, text_of({"a": 4000, "b": 4000})
    config = config_of(tmp_path, mixture(folders, (0, {"a": 3.0, "b": 1.0})))
    data = dataclasses.replace(config.data, mixture=mixture(folders, (0, {"a": 1.0, "b": 1.0})))
    _, lines = resume(dataclasses.replace(config, data=data), config, text, 2)
    assert "the shares of the sources change, in the held-out loss too" in lines[-1].effect
    assert "other batches" not in lines[-1].effect
    alone = dataclasses.replace(config.data, mixture=None, path="a")
    _, lines = resume(dataclasses.replace(config, data=alone), config, Text("a", 4000), 2)
    assert "other batches" in lines[-1].effect


def no_such_dataset(mixed: MixtureConfig) -> MixtureConfig:
    first, *others = mixed.sources
    return dataclasses.replace(mixed, sources=(dataclasses.replace(first, path="nowhere"), *others))


def test_what_a_mixture_cannot_read_is_refused_before_anything_is_written(
    tmp_path: Path, three_sources: dict[str, Path], tiny_dataset: Path
) -> None:
    out = tmp_path / "run"
    mixed = mixture(three_sources, *STAGES)
    other = tmp_path / "other"
    shutil.copytree(three_sources["books"], other)
    twice = mixture(
        three_sources | {"copy": other}, (0, dict.fromkeys((*three_sources, "copy"), 1.0))
    )
    capped = mixture(three_sources, (0, {"web": 1.0, "code": 1.0, "books": 9.0}), books=0.02)
    cases = {
        "data.mixture: source 'web': There is no dataset in 'nowhere'": no_such_dataset(mixed),
        "hold the same text: keep one of them": twice,
        "the run reads 'books'": capped,
    }
    for words, one in cases.items():
        with pytest.raises(ConfigError, match=words):
            train(config_of(out, one))
        assert not (out / "run.json").exists() and not (out / "checkpoints").exists()


def test_another_tokenizer_is_refused(
    tmp_path: Path, three_sources: dict[str, Path], tiny_dataset: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(three_sources["books"], other)
    info = json.loads((other / "dataset.json").read_text())
    texts = [f"def f{i}(self): return {i}" for i in range(3000)]
    made = training.train(texts, vocab_size=300)
    (other / "tokenizer.model").write_bytes(made.content)
    (other / "dataset.json").write_text(json.dumps(info | {"tokenizer_sha256": made.sha256}))
    folders = {"web": three_sources["web"], "books": other}
    with pytest.raises(ConfigError, match=r"another tokenizer than .*web: build it again"):
        train(config_of(tmp_path / "run", mixture(folders, (0, {"web": 1.0, "books": 1.0}))))


def test_a_lineage_that_was_altered_is_refused(
    whole: tuple[RunConfig, dict[str, Any]], tmp_path: Path
) -> None:
    config, _ = whole
    lineage = json.loads((Path(config.out) / "lineage.json").read_text())
    for changes, words in (
        ({"texts": {}}, "does not describe"),
        ({"format": 9}, "reads formats up to 1"),
        ({"stages": 1}, "is not a lineage"),
    ):
        (tmp_path / "lineage.json").write_text(json.dumps(lineage | changes))
        with pytest.raises(UserError, match=words):
            saved_lineage(tmp_path, None)
