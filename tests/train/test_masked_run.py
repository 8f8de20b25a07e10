"""Encoders in training: what is hidden, the loss, resume, meshes, and one step beside torch's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny import VOCAB, parameters, relative_error, run_config

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EncoderConfig,
    EvalConfig,
    ParallelConfig,
    RunConfig,
    from_dict,
    from_json,
    to_dict,
    to_json,
)
from llm_jax.data.batch import IGNORED
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers.mask import mask_id
from llm_jax.facts.train_flops import train_flops
from llm_jax.objectives.masked import chosen_size
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.feed import held_out_batches, to_device
from llm_jax.train.load import load_run
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics
from llm_jax.train.state import abstract_state
from llm_jax.train.step import compile_train_step

BERT = EncoderConfig(
    vocab_size=VOCAB, num_layers=2, d_model=32, num_heads=4, d_ff=64, max_seq_len=64
)


def config_of(out: Path | str, dataset: Path | str, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "objective": "masked",
        "model": BERT,
        "data": DataConfig(path=str(dataset), seq_len=32, batch_size=8),
        "checkpoint": CheckpointConfig(every=4),
        "eval": EvalConfig(every=4, batches=2),
        "steps": 8,
    }
    return run_config(out, dataset, **(fields | changes))


@pytest.fixture(scope="module")
def text(tiny_dataset: Path) -> TokenDataset:
    return TokenDataset.open(tiny_dataset)


def packed(text: TokenDataset, b: int, T: int) -> dict[str, np.ndarray]:
    return text.batches(split="train", seq_len=T, batch_size=b, seed=3).at(0)


def test_what_is_hidden(text: TokenDataset) -> None:
    """15% of the tokens of text: 80% become the mask, 10% a random token, 10% stay."""
    T, b = 128, 256
    data = DataConfig(path=str(text.path), seq_len=T, batch_size=b, seed=5)
    model = dataclasses.replace(BERT, max_seq_len=T)
    config = config_of("unused", text.path, data=data, model=model)
    rows, numbers = packed(text, b, T), np.arange(100, 100 + b)
    made = objective_of(config).rows(text.tokenizer)(rows, numbers)
    chosen = made["targets"] >= 0
    assert made["targets"].shape == (b, chosen_size(config)) == (b, 24)
    row, _ = np.nonzero(chosen)
    place = made["places"][chosen]
    assert len({*zip(row.tolist(), place.tolist(), strict=True)}) == len(row)
    was, now = rows["inputs"][row, place], made["inputs"][row, place]
    assert np.array_equal(was, made["targets"][chosen])
    is_text = text.tokenizer.token_bytes[rows["inputs"]] > 0
    assert text.tokenizer.token_bytes[was].min() > 0
    assert len(row) / is_text.sum() == pytest.approx(0.15, abs=0.003)
    mask = mask_id(text.tokenizer)
    assert text.tokenizer.pieces([mask]) == ["<unk>"]
    assert np.mean(now == mask) == pytest.approx(0.8, abs=0.02)
    assert np.mean(now == was) == pytest.approx(0.1, abs=0.02)
    untouched = np.ones_like(is_text)
    untouched[row, place] = False
    assert np.array_equal(made["inputs"][untouched], rows["inputs"][untouched])
    # A function of the seed and the number of each row alone: any part of the rows, on any host.
    part = objective_of(config).rows(text.tokenizer)(
        {name: array[7:9] for name, array in rows.items()}, numbers[7:9]
    )
    assert all(np.array_equal(part[name], made[name][7:9]) for name in part)
    again = objective_of(config).rows(text.tokenizer)(rows, numbers + b)
    assert not np.array_equal(again["places"], made["places"])


def test_a_row_without_targets_hides_nothing(text: TokenDataset) -> None:
    config = config_of("unused", text.path)
    rows = packed(text, 8, 32)
    rows["targets"][3] = IGNORED
    made = objective_of(config).rows(text.tokenizer)(rows, np.arange(8))
    assert np.all(made["targets"][3] == IGNORED)
    assert np.array_equal(made["inputs"][3], rows["inputs"][3])


@pytest.mark.slow
def test_a_run_resumes_bitwise_and_learns(tmp_path: Path, tiny_dataset: Path, capfd: Any) -> None:
    whole = train(config_of(tmp_path / "whole", tiny_dataset, steps=8))
    assert "hidden tokens become '<unk>', id 0" in "".join(capfd.readouterr())
    part = config_of(tmp_path / "part", tiny_dataset)
    train(part, callback=lambda record: record["step"] < 3)
    train(part)
    one, two = (load_run(tmp_path / name).params for name in ("whole", "part"))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, two))
    records = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    losses = [r["loss"] for r in records if r["split"] == "validation"]
    assert losses[-1] < losses[0] < np.log(VOCAB) + 0.5
    assert whole["mfu"] is None or whole["mfu"] > 0
    assert from_json(to_json(part), RunConfig) == part


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
def test_a_mesh_takes_the_same_step(text: TokenDataset, paired: bool) -> None:
    model = dataclasses.replace(BERT, next_sentence=paired)
    after = {}
    for name, parallel in (
        ("one", ParallelConfig()),
        ("eight", ParallelConfig(data=2, fsdp=2, tensor=2)),
    ):
        config = config_of("unused", text.path, model=model, parallel=parallel)
        mesh = make_mesh(parallel, jax.devices()[: 8 if name == "eight" else 1])
        arrays = objective_of(config).arrays
        host = held_out_batches(text, config, mesh).at(0)
        state = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_state(config, mesh)
        )
        state |= {"params": parameters(model, size=0.1)}
        where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
        step = compile_train_step(config, mesh, text.tokenizer.token_bytes)
        made, metrics = step(jax.device_put(state, where), to_device(host, mesh, arrays))
        after[name] = jax.device_get((made["params"], metrics["loss"], metrics["grad_norm"]))
    assert relative_error(after["eight"], after["one"]) < 2e-4


def test_halves_are_exchanged_with_their_targets(text: TokenDataset) -> None:
    from llm_jax.objectives.masked import _swapped

    model = dataclasses.replace(BERT, next_sentence=True)
    config = config_of("unused", text.path, model=model)
    rows = packed(text, 8, 32)
    made = objective_of(config).rows(text.tokenizer)(rows, np.arange(8))
    made["other"] = np.array([0, 1, 0, 1, 1, 0, 0, 0], np.int32)
    assert made["inputs"][:, 0].tolist() == [text.tokenizer.bos_id] * 8
    assert made["inputs"][:, [15, 31]].tolist() == [[text.tokenizer.eos_id] * 2] * 8
    assert made["types"][0].tolist() == [0] * 16 + [1] * 16
    swapped = jax.device_get(_swapped(made))
    order = [0, 3, 2, 4, 1, 5, 6, 7]
    for name in ("inputs", "places", "targets"):
        half = made[name].shape[1] // 2
        assert np.array_equal(swapped[name][:, :half], made[name][:, :half])
        assert np.array_equal(swapped[name][:, half:], made[name][order, half:])
    assert swapped["other"].tolist() == made["other"].tolist()
    second = made["places"][:, 4:][made["targets"][:, 4:] >= 0]
    assert second.min() >= 16
    alone = jax.device_get(_swapped(made | {"other": np.eye(8, dtype=np.int32)[2]}))
    assert alone["other"].sum() == 0


def test_flops_are_those_of_the_matrices() -> None:
    """2 FLOPs per weight and token, and the head for the hidden tokens alone."""
    config = config_of("unused", "unused")
    params = parameters(BERT)
    weights = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params["blocks"])
        if path[-1].key in ("q", "k", "v", "o", "up", "down")
    )
    head = params["head"]["dense"].size + params["embed"]["tokens"].size
    scores = 2 * 2 * 2 * 32 * 32  # layers, scores and values, FLOPs, keys, width
    assert train_flops(config) == 3 * (2 * weights + scores + 0.15 * 2 * head)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "next_token"}, "set objective to 'masked'"),
        ({"model": to_dict(run_config().model)}, "set objective to 'next_token'"),
        ({"data": {"mask_rate": 1.0}}, "data.mask_rate is 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(changes: Any, words: str) -> None:
    raw = to_dict(config_of("unused", "unused"))
    with pytest.raises(ConfigError, match=words):
        from_dict(
            raw | {k: raw[k] | v if k == "data" else v for k, v in changes.items()}, RunConfig
        )
