"""Recurrent language models: torch's arithmetic, documents, meshes, resume and generation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import VOCAB, compute_config, packed_batch, relative_error, run_config

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    ParallelConfig,
    RecurrentConfig,
    UserError,
    from_json,
    to_json,
)
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.facts.hardware import chip
from llm_jax.facts.recurrent_counts import recurrent_flops, recurrent_parameters
from llm_jax.facts.train_flops import train_flops
from llm_jax.infer.beam import beam_search
from llm_jax.infer.decoder import Decoder, prepared
from llm_jax.infer.generator import generate
from llm_jax.infer.sampling import Sampling
from llm_jax.laws.run_curves import read_folder
from llm_jax.models.protocol import Context, model_of
from llm_jax.parallel.check import check_divisible
from llm_jax.parallel.mesh import make_mesh
from llm_jax.parallel.pipeline import Schedule
from llm_jax.plan import architecture
from llm_jax.plan.dataset_text import Text
from llm_jax.plan.ladder_runs import LadderRequest, plan_ladder
from llm_jax.train.inherit import check_fits
from llm_jax.train.load import load_run
from llm_jax.train.loop import train

LSTM = RecurrentConfig(vocab_size=64, num_layers=2, d_model=32, max_seq_len=64)
GRU = dataclasses.replace(LSTM, cell="gru", tie_embeddings=False)
BOTH = pytest.mark.parametrize("config", [LSTM, GRU], ids=["lstm", "gru"])


def parameters(config: RecurrentConfig, seed: int = 0) -> Any:
    """Random values for every leaf, biases too."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model_of(config).init(config, jax.random.key(0)))
    return jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes)


def logits(params: Any, batch: Any, config: RecurrentConfig) -> np.ndarray:
    family = model_of(config)
    hidden = family.forward(params, batch, config, Context(compute_config()))
    return np.asarray(family.logits(hidden.x_BTD, params, config))


@BOTH
def test_logits_are_those_of_torch(config: RecurrentConfig) -> None:
    torch = pytest.importorskip("torch")
    params, batch = parameters(config), packed_batch(2, 24)
    batch["positions"] = np.tile(np.arange(24, dtype=np.int32), (2, 1))  # one document each
    D, blocks = config.d_model, params["blocks"]
    network = getattr(torch.nn, config.cell.upper())(D, D, config.num_layers, batch_first=True)
    for i in range(config.num_layers):
        state_bias = np.zeros_like(blocks["bias"][i])
        if config.cell == "gru":
            state_bias[2] = blocks["new_bias"][i]
        values = {
            "weight_ih": blocks["inputs"][i].reshape(D, -1).T,
            "weight_hh": blocks["state"][i].reshape(D, -1).T,
            "bias_ih": blocks["bias"][i].reshape(-1),
            "bias_hh": state_bias.reshape(-1),
        }
        for name, value in values.items():
            getattr(network, f"{name}_l{i}").data = torch.tensor(value.copy())
    table = params["embed"]["tokens"]
    x = torch.tensor(table[batch["inputs"]] * np.float32(D**0.5))
    out = table.T if config.tie_embeddings else params["unembed"]
    expected = network(x)[0].detach().numpy() @ out
    np.testing.assert_allclose(logits(params, batch, config), expected, atol=2e-5)


@BOTH
def test_a_document_does_not_see_the_one_before(config: RecurrentConfig) -> None:
    params = parameters(config)
    tokens = np.random.default_rng(1).integers(3, 64, (1, 20), np.int32)
    positions = np.concatenate([np.arange(12), np.arange(8)])[None].astype(np.int32)
    packed = logits(params, {"inputs": tokens, "positions": positions}, config)
    alone = {"inputs": tokens[:, 12:], "positions": positions[:, 12:]}
    np.testing.assert_allclose(packed[:, 12:], logits(params, alone, config), atol=1e-6)


@BOTH
def test_counts_are_those_of_the_real_tree(config: RecurrentConfig) -> None:
    shapes = jax.eval_shape(lambda: model_of(config).init(config, jax.random.key(0)))
    assert recurrent_parameters(config) == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    gates = 4 if config.cell == "lstm" else 3
    assert recurrent_flops(config) == 2 * (2 * 2 * gates * 32 * 32 + 64 * 32)
    assert train_flops(run_config(model=config)) == 3 * recurrent_flops(config)


def config_of(out: Path | str, dataset: Path | str, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "model": dataclasses.replace(LSTM, vocab_size=VOCAB),
        "data": DataConfig(path=str(dataset), seq_len=32, batch_size=8),
        "checkpoint": CheckpointConfig(every=3),
        "eval": EvalConfig(every=6, batches=2),
        "steps": 6,
    }
    return run_config(out, dataset, **(fields | changes))


def test_a_config_goes_through_json() -> None:
    config = config_of("out", "data")
    assert from_json(to_json(config), type(config)) == config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    out = tmp_path_factory.mktemp("recurrent") / "run"
    train(config_of(out, tiny_dataset))
    return out


@pytest.mark.slow
def test_it_learns_and_resumes_bitwise(trained: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config_of(out, tiny_dataset), callback=lambda record: record["step"] < 3)
    assert not (out / "checkpoints" / "6").exists()
    train(config_of(out, tiny_dataset))
    for a, b in zip(
        jax.tree.leaves(load_run(trained).params),
        jax.tree.leaves(load_run(out).params),
        strict=True,
    ):
        assert np.array_equal(a, b)


@pytest.mark.slow
def test_a_mesh_of_eight_gives_the_loss_of_one(trained: Path, tiny_dataset: Path) -> None:
    from llm_jax.train.feed import to_device
    from llm_jax.train.step import gradients

    one = config_of("unused", tiny_dataset)
    params = parameters(one.model)
    batch = packed_batch(8, 32, VOCAB)
    found = []
    for parallel in (ParallelConfig(), ParallelConfig(fsdp=4, tensor=2)):
        config = dataclasses.replace(one, parallel=parallel)
        mesh = make_mesh(config.parallel)
        with jax.set_mesh(mesh):
            found.append(
                jax.jit(lambda p, b, c=config: gradients(p, b, c))(params, to_device(batch, mesh))
            )
    assert relative_error(found[0], found[1]) < 1e-5


@BOTH
def test_a_pipeline_gives_the_states_of_one_device(config: RecurrentConfig) -> None:
    params, compute = parameters(config), compute_config()
    batch = {name: jnp.asarray(rows) for name, rows in packed_batch(4, 16).items()}
    family, context = model_of(config), Context(compute)
    parallel = ParallelConfig(data=1, pipeline=2)
    mesh = make_mesh(parallel, jax.devices()[:2])
    check_divisible(run_config(model=config, parallel=parallel), mesh)
    with jax.set_mesh(mesh):
        staged = dataclasses.replace(context, schedule=Schedule(2, 1, 2))
        found = jax.jit(lambda p, b: family.forward(p, b, config, staged).x_BTD)(params, batch)
    whole = family.forward(params, batch, config, context).x_BTD
    np.testing.assert_allclose(np.asarray(found), np.asarray(whole), atol=1e-5)


def test_the_length_is_not_split(tiny_dataset: Path) -> None:
    config = config_of("unused", tiny_dataset, parallel=ParallelConfig(context=2))
    with pytest.raises(ConfigError, match="cannot be split"):
        train(config)


@pytest.mark.slow
@BOTH
def test_generation_equals_the_whole_forward_pass(config: RecurrentConfig) -> None:
    """Greedy, with prompts of two lengths: the state of a row ignores its padding."""
    params, compute = parameters(config), compute_config()
    decoder = Decoder(config, compute, Sampling(temperature=0.0), 64, (1,))
    prompts = [[5, 9, 11, 30, 7], [40, 8]]
    made = generate(prepared(params, config, compute), decoder, prompts, max_tokens=12)
    for prompt, ids in zip(prompts, made.ids, strict=True):
        text = list(prompt)
        for token in ids:
            batch = {
                "inputs": np.array([text], np.int32),
                "positions": np.arange(len(text), dtype=np.int32)[None],
            }
            assert int(jnp.argmax(logits(params, batch, config)[0, -1])) == token
            text.append(token)
    beams = beam_search(
        prepared(params, config, compute), decoder, prompts[0], beams=1, max_tokens=12
    )
    assert beams[0][: len(made.ids[0])] == made.ids[0]


@pytest.mark.parametrize("family", ["lstm", "gru"])
def test_a_ladder_of_recurrent_networks(family: str) -> None:
    text = Text("data/x", 4096, 10_000_000, 250_000, 3.0, "some text", "f" * 64)
    cpu = dataclasses.replace(chip("a100"), kind="cpu", f32_flops=1e11, bf16_flops=1e11)
    request = LadderRequest(text=text, chip=cpu, flops=6e13, family=family)
    rungs = plan_ladder(request)
    assert sum(rung.flops for rung in rungs) == pytest.approx(6e13, rel=0.1)
    like = plan_ladder(dataclasses.replace(request, family="llama"))
    sizes = sorted({rung.params for rung in rungs})
    assert len(sizes) == 3
    assert sizes == pytest.approx(sorted({rung.params for rung in like}), rel=0.05)
    for rung in rungs:
        model = rung.config.model
        assert isinstance(model, RecurrentConfig)
        assert model.cell == family
        assert recurrent_parameters(model) == rung.params
    with pytest.raises(UserError, match="--family is 'lsmt': did you mean 'lstm'"):
        plan_ladder(dataclasses.replace(request, family="lsmt"))
    with pytest.raises(UserError, match="--minutes is 10, and the time of a step is not known"):
        plan_ladder(dataclasses.replace(request, flops=None, minutes=10))
    with pytest.raises(UserError, match=f"family is '{family}', and only `llm-jax ladder` trains"):
        architecture.choose(family, float, 1e6, params=1e6, seq_len=64, vocab_size=512)


def test_its_weights_fit_longer_sequences(trained: Path) -> None:
    config, sha256 = load_run(trained).config, Tokenizer.load(trained).sha256
    for name, value, fits in (("max_seq_len", 4096, True), ("d_model", 64, False)):
        model = dataclasses.replace(config.model, **{name: value})
        changed = dataclasses.replace(config, model=model)
        if fits:
            check_fits("--init", str(trained), trained, changed, sha256)
            continue
        with pytest.raises(ConfigError, match="a run of another architecture"):
            check_fits("--init", str(trained), trained, changed, sha256)


def test_a_law_reads_the_run_of_a_recurrent_network(trained: Path) -> None:
    curve = read_folder(trained, "all")
    assert curve.params == recurrent_parameters(load_run(trained).config.model)
    assert read_folder(trained, "non-embedding").params == curve.params - VOCAB * 32
