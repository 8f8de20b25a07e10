"""Recurrent encoder-decoders: torch's arithmetic, packed pairs, meshes, resume, generation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from verb_calls import call

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    ParallelConfig,
    RecurrentEncoderDecoderConfig,
    UserError,
    from_json,
    to_json,
)
from llm_jax.facts.train_flops import train_flops
from llm_jax.infer.sources_to_targets import Writer, beam, greedy
from llm_jax.models.protocol import Context, model_of
from llm_jax.objectives.objective import objective_of
from llm_jax.objectives.spans import pair_rows
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.feed import to_device
from llm_jax.train.load import load_run
from llm_jax.train.loop import train
from llm_jax.train.step import gradients

OWN = tiny.VOCAB
LSTM = RecurrentEncoderDecoderConfig(
    vocab_size=OWN + 128, num_layers=2, num_decoder_layers=2, d_model=32, max_seq_len=64
)
GRU = dataclasses.replace(
    LSTM, cell="gru", attention="additive", num_layers=1, tie_embeddings=False
)
BOTH = pytest.mark.parametrize("model", [LSTM, GRU], ids=["lstm-general", "gru-additive"])
COMPUTE = tiny.compute_config()


def run_of(model: Any, out: Any = "unused", dataset: Any = "unused", **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "model": model,
        "objective": "spans",
        "data": DataConfig(path=str(dataset), seq_len=40, batch_size=8),
        "optim": tiny.optim_config(label_smoothing=0.1),
        "checkpoint": CheckpointConfig(every=2),
        "eval": EvalConfig(every=4, batches=2),
        "steps": 4,
    }
    return tiny.run_config(out, dataset, **(fields | changes))


def pairs(model: Any, lengths: Any = ((17, 9), (30, 14), (25, 5), (8, 12))) -> Any:
    """Sources and targets of different lengths, with padding."""
    rng = np.random.default_rng(0)
    sources, targets = (
        [rng.integers(4, OWN, pair[i], dtype=np.int32) for pair in lengths] for i in (0, 1)
    )
    return pair_rows(sources, targets, 30, 16, start=3, pad=3)


def torch_cell(torch: Any, arrays: Any, cell: str) -> Any:
    """A layer of torch in one direction with these arrays."""
    D, G, H = arrays["inputs"].shape
    layer = getattr(torch.nn, cell.upper())(D, H, batch_first=True)
    state_bias = np.zeros((G, H), np.float32)
    if cell == "gru":
        state_bias[2] = arrays["new_bias"]
    values = {
        "weight_ih_l0": arrays["inputs"].reshape(D, -1).T,
        "weight_hh_l0": arrays["state"].reshape(H, -1).T,
        "bias_ih_l0": arrays["bias"].reshape(-1),
        "bias_hh_l0": state_bias.reshape(-1),
    }
    for name, value in values.items():
        getattr(layer, name).data = torch.tensor(value.copy())
    return layer


def torch_logits(torch: Any, params: Any, source: Any, before: Any, model: Any) -> Any:
    """Logits of one pair, written out: encoder, then the decoder step by step. What is fed is
    beside the first layer's input, as a wider input of the cell."""
    take = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)  # noqa: E731
    att = jax.tree.map(torch.tensor, params["attention"])
    table, root = torch.tensor(params["embed"]["tokens"]), model.d_model**0.5
    m = table[torch.tensor(source)][None] * root
    for i in range(model.num_layers):
        ahead, back = (
            torch_cell(torch, take(params["encoder"][way], i), model.cell)
            for way in ("ahead", "back")
        )
        m = torch.cat([ahead(m)[0], back(m.flip(1))[0].flip(1)], -1)
    layers = []
    for i in range(model.num_decoder_layers):
        arrays = dict(take(params["decoder"], i))
        if i == 0:
            arrays["inputs"] = np.concatenate([arrays["inputs"], params["attention"]["feed"]])
        layers.append(torch_cell(torch, arrays, model.cell))
    keys, states = m @ att["keys"], [None] * len(layers)
    fed, rows = torch.tanh(m.mean(1) @ att["of_source"]), []
    for token in before:
        x = torch.cat([table[int(token)][None] * root, fed], -1)[:, None]
        for i, layer in enumerate(layers):
            x, states[i] = layer(x, states[i])
        h = x[:, 0]
        if model.attention == "additive":
            scores = torch.tanh((h @ att["query"])[:, None] + keys) @ att["score"]
        else:
            scores = (keys @ h[..., None])[..., 0]
        c = (torch.softmax(scores, -1)[:, None] @ m)[:, 0]
        fed = torch.tanh(h @ att["of_state"] + c @ att["of_source"])
        rows.append(fed[0])
    out = table.T if model.tie_embeddings else torch.tensor(params["unembed"])
    return (torch.stack(rows) @ out).detach().numpy()


def logits(params: Any, batch: Any, model: Any) -> np.ndarray:
    family = model_of(model)
    hidden = family.forward(params, batch, model, Context(COMPUTE))
    return np.asarray(family.logits(hidden.x_BTD, params, model))


@pytest.mark.slow
@BOTH
def test_logits_are_those_of_torch(model: Any) -> None:
    torch = pytest.importorskip("torch")
    params, batch = tiny.parameters(model, size=0.3), pairs(model)
    found = logits(params, batch, model)
    for row in range(4):
        source = batch["inputs"][row][batch["segments"][row] > 0]
        before = batch["decoder_inputs"][row][batch["decoder_segments"][row] > 0]
        wanted = torch_logits(torch, params, source, before, model)
        np.testing.assert_allclose(found[row, : len(before)], wanted, atol=1e-4)


@pytest.mark.slow
@BOTH
def test_packed_pairs_do_not_see_each_other(model: Any) -> None:
    """The first two pairs in one row, behind each other."""
    params, batch = tiny.parameters(model, size=0.3), pairs(model)
    places = {"inputs": (17, 30), "decoder_inputs": (9, 14)}
    packed = {}
    for name, ends in places.items():
        packed[name] = np.concatenate([batch[name][i, :end] for i, end in enumerate(ends)])[None]
        numbers = name.replace("inputs", "segments")
        packed[numbers] = np.repeat(np.array([1, 2], np.int32), ends)[None]
    found, alone = logits(params, packed, model)[0], logits(params, batch, model)
    np.testing.assert_allclose(found[:9], alone[0, :9], atol=1e-5)
    np.testing.assert_allclose(found[9:], alone[1, :14], atol=1e-5)


@pytest.mark.slow
@BOTH
def test_targets_are_those_of_the_whole_forward_pass(model: Any) -> None:
    """Greedily, for sources of two lengths at once; by beams, with the same sum of log p."""
    params, rng = tiny.parameters(model, size=0.5), np.random.default_rng(1)
    writer = Writer(model, COMPUTE, limit=OWN + 100, start=3, stop_ids=(2,))
    sources = [rng.integers(4, OWN, n).tolist() for n in (20, 11)]
    found = greedy(params, writer, sources, max_tokens=12)

    def log_p(source: list[int], ids: list[int]) -> np.ndarray:
        one = pair_rows([np.array(source)], [np.array(ids)], len(source), len(ids), 3, 3)
        rows = logits(params, one, model)[0].copy()
        rows[:, OWN + 100 :] = -np.inf
        return np.asarray(jax.nn.log_softmax(jnp.asarray(rows)))

    for source, ours in zip(sources, found, strict=True):
        ids = [*ours.ids, *([2] if ours.stopped else [])]
        rows = log_p(source, ids)
        assert rows.argmax(axis=1).tolist() == ids
        assert rows.max(axis=1).sum() == pytest.approx(ours.log_prob, abs=1e-3)
    assert len({*found[0].ids, *found[1].ids}) > 4
    best = beam(params, writer, sources[1], beams=3, max_tokens=12)
    ids = [*best.ids, *([2] if best.stopped else [])]
    sums = log_p(sources[1], ids)[np.arange(len(ids)), ids].sum()
    assert sums == pytest.approx(best.log_prob, abs=1e-3)
    assert beam(params, writer, sources[0], beams=1, max_tokens=12).ids == found[0].ids
    with pytest.raises(UserError, match="1 to 64"):
        greedy(params, writer, [[5] * 65], max_tokens=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    out = tmp_path_factory.mktemp("attentive") / "run"
    train(run_of(LSTM, out, tiny_dataset))
    return out


@pytest.mark.slow
def test_it_resumes_bitwise(trained: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(run_of(LSTM, out, tiny_dataset), callback=lambda record: record["step"] < 2)
    assert not (out / "checkpoints" / "4").exists()
    train(run_of(LSTM, out, tiny_dataset))
    both = (load_run(folder).params for folder in (trained, out))
    assert jax.tree.all(jax.tree.map(np.array_equal, *both))


@pytest.mark.slow
def test_the_verb_makes_targets(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--prompt", "import <extra_id_0>", "--max-tokens", 5, "--json", "--temperature", 0)
    code, out, err = call(capsys, "generate", trained, *flags)
    assert code == 0, err
    (made,) = json.loads(out)["samples"]
    assert 0 < len(made["ids"]) <= 5
    code, _, err = call(capsys, "generate", trained, "--prompt", "import")
    assert code == 2
    assert "give --temperature 0, or --beams N" in err
    code, _, err = call(capsys, "export", trained, "--to", "hf", trained.parent / "hf")
    assert code == 2
    assert "'recurrent_encoder_decoder', of which transformers has no class" in err


@pytest.mark.slow
def test_a_mesh_of_eight_gives_the_gradients_of_one(tiny_dataset: Path) -> None:
    batch, found = pairs(LSTM, ((17, 9), (30, 14), (25, 5), (8, 12)) * 2), []
    params = tiny.parameters(LSTM, size=0.2)
    for parallel in (ParallelConfig(), ParallelConfig(fsdp=4, tensor=2)):
        config = run_of(LSTM, parallel=parallel)
        mesh = make_mesh(parallel, jax.devices()[: 8 if parallel.fsdp > 1 else 1])
        placed = to_device(batch, mesh, objective_of(config).arrays)
        with jax.set_mesh(mesh):
            found.append(jax.jit(lambda p, b, c=config: gradients(p, b, c))(params, placed))
    assert tiny.relative_error(found[1], found[0]) < 2e-4
    for axis in ("context", "pipeline"):
        refused = run_of(LSTM, "unused", tiny_dataset, parallel=ParallelConfig(**{axis: 2}))
        with pytest.raises(ConfigError, match=f"parallel.{axis} is 2"):
            train(refused)


@pytest.mark.slow
def test_a_config_is_checked_and_goes_through_json() -> None:
    config = run_of(GRU)
    assert from_json(to_json(config), type(config)) == config
    with pytest.raises(ConfigError, match=r"model\.d_model is 33, .* make it even"):
        dataclasses.replace(LSTM, d_model=33)
    with pytest.raises(ConfigError, match="set objective to 'spans'"):
        run_of(LSTM, objective="next_token")


@pytest.mark.slow
@BOTH
def test_flops_are_those_of_the_matrices(model: Any) -> None:
    size: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tiny.parameters(model)):
        if path[-1].key not in ("bias", "new_bias", "score"):
            size[path[0].key] = size.get(path[0].key, 0) + leaf.size
    S, T, D = 37, 9, model.d_model
    of_source = D * D  # it is used for the first step too
    target = size["decoder"] + size["attention"] - D * D + of_source + D * model.vocab_size
    whole = 2 * (S * (size["encoder"] + D * D) + T * target) + T * 6 * D * S
    assert train_flops(run_of(model)) == pytest.approx(3 * whole / 40)
