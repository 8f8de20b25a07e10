"""T5: buckets, corrupted spans, and the model beside transformers in both directions."""

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
from beside_torch import optim_config, require_same_step

from llm_jax.attention.biased import relative_buckets
from llm_jax.config import (
    ComputeConfig,
    ConfigError,
    DataConfig,
    EncoderDecoderConfig,
    ParallelConfig,
    UserError,
)
from llm_jax.config.data import span_lengths
from llm_jax.convert import hf_export, hf_import, hf_model
from llm_jax.convert.others import other_of
from llm_jax.convert.own_tokenizer import tokenizer_of
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers.sentinels import sentinel_ids
from llm_jax.facts.train_flops import train_flops
from llm_jax.infer.sources_to_targets import Writer, beam, greedy
from llm_jax.objectives.objective import objective_of
from llm_jax.objectives.spans import pair_rows
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train import step
from llm_jax.train.feed import held_out_batches, to_device
from llm_jax.train.state import abstract_state

OWN = tiny.VOCAB
V11 = EncoderDecoderConfig(
    vocab_size=OWN + 128, num_layers=2, num_decoder_layers=3, d_model=32, num_heads=4, head_dim=10,
    d_ff=48, max_seq_len=96, scaled_head=False,
)  # fmt: skip
MODELS = {
    "t5": dataclasses.replace(V11, activation="relu", num_decoder_layers=2, scaled_head=True),
    "t5-1.1": V11,
}
COMPUTE = ComputeConfig(dtype="float32", remat="none")


def run_of(model: Any, path: Any = "unused", **changes: Any) -> Any:
    data = DataConfig(path=str(path), seq_len=48, batch_size=8)
    fields: dict[str, Any] = {"model": model, "objective": "spans", "data": data}
    return tiny.run_config(**(fields | changes))


@pytest.fixture(scope="module")
def text(tiny_dataset: Path) -> TokenDataset:
    return TokenDataset.open(tiny_dataset)


def test_buckets_are_those_of_t5() -> None:
    relative = [-200, -128, -64, -32, -20, -16, -12, -8, -7, -1, 0, 1, 7, 8, 12, 16, 20, 32, 64]
    relative += [127, 200]
    both = [15, 15, 14, 12, 10, 10, 9, 8, 7, 1, 0, 17, 23, 24, 25, 26, 26, 28, 30, 31, 31]
    causal = [31, 31, 26, 21, 17, 16, 12, 8, 7, 1] + [0] * 11
    for wanted, one_way in ((both, False), (causal, True)):
        found = relative_buckets(jnp.array(relative), causal=one_way, buckets=32, max_distance=128)
        assert found.tolist() == wanted


def test_every_bucket_is_that_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    relative = np.arange(-300, 301)
    for causal in (False, True):
        for buckets, most in ((32, 128), (16, 50), (64, 1000)):
            wanted = t5.T5Attention._relative_position_bucket(
                torch.from_numpy(relative), not causal, buckets, most
            )
            found = relative_buckets(
                jnp.array(relative), causal=causal, buckets=buckets, max_distance=most
            )
            assert found.tolist() == wanted.tolist()


def test_spans_are_hidden_as_in_t5(text: TokenDataset) -> None:
    assert span_lengths(568, 0.15, 3.0) == (512, 114)
    data = DataConfig(path=str(text.path), seq_len=100, batch_size=16, seed=3)
    config = run_of(dataclasses.replace(V11, max_seq_len=100), data=data)
    rows = text.batches(split="train", seq_len=100, batch_size=16, seed=3).at(0)
    numbers = np.arange(40, 56)
    prepare = objective_of(config).rows(text.tokenizer)
    made = prepare(rows, numbers)
    sentinels = sentinel_ids(text.tokenizer, V11)
    assert sentinels[:2].tolist() == [OWN + 99, OWN + 98]
    assert made["inputs"].shape == (16, 91)
    assert made["targets"].shape == (16, 21)
    starts = set()
    for source, target, before, window in zip(
        made["inputs"], made["targets"], made["decoder_inputs"], rows["inputs"], strict=True
    ):
        assert source[-1] == target[-1] == text.tokenizer.eos_id
        assert before[0] == text.tokenizer.pad_id
        assert np.array_equal(before[1:], target[:-1])
        assert source[0] < OWN
        assert target[0] == sentinels[0]
        hidden = np.split(target[:-1], np.flatnonzero(np.isin(target, sentinels)))[1:]
        assert [int(span[0]) for span in hidden] == sentinels[:5].tolist()
        restored = [
            token
            for one in source[:-1]
            for token in (hidden[sentinels[0] - one][1:] if one >= OWN else [one])
        ]
        assert np.array_equal(restored, window)
        starts.add(int(np.flatnonzero(source >= OWN)[0]))
    assert len(starts) > 5
    part = prepare({name: array[5:7] for name, array in rows.items()}, numbers[5:7])
    assert all(np.array_equal(part[name], made[name][5:7]) for name in part)
    with pytest.raises(ConfigError, match=f"set it to {OWN + 100} or more"):
        sentinel_ids(text.tokenizer, dataclasses.replace(V11, vocab_size=OWN))


@pytest.fixture(scope="module")
def folders(text: TokenDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name → its folder, its parameters and what `export` said."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    made = {}
    for name, model in MODELS.items():
        params, out = tiny.parameters(model, size=0.15), tmp_path_factory.mktemp(name) / "hf"
        made[name] = (
            out,
            params,
            hf_export.export(run_of(model), 0, params, text.tokenizer, out, run=out.parent),
        )
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_goes_out_and_comes_back(name: str, folders: Any, text: TokenDataset) -> None:
    import transformers

    out, params, made = folders[name]
    assert made.architecture == "T5ForConditionalGeneration"
    assert made.max_logit_difference < 1e-4
    model, back = hf_model.read(out)
    assert model == MODELS[name]
    assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    ids = sentinel_ids(text.tokenizer, model).tolist()
    assert theirs.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(100)]) == ids
    tokenizer = tokenizer_of(out)
    again = hf_import.import_run(out, out.parent / "run", tokenizer, check=True).config
    assert (again.objective, again.model) == ("spans", model)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_one_adamw_step(name: str, folders: Any) -> None:
    """Of sources and targets of different lengths, with padding, beside torch's."""
    import torch
    import transformers

    out, params, _ = folders[name]
    model, rng = MODELS[name], np.random.default_rng(0)
    config = run_of(model, optim=optim_config(eps=1e-4))
    sources = [rng.integers(4, OWN, n, dtype=np.int32) for n in (30, 17, 25)]
    targets = [rng.integers(4, OWN, n, dtype=np.int32) for n in (9, 14, 5)]
    batch = pair_rows(sources, targets, 30, 16, start=3, pad=3)
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(
        out, attn_implementation="eager"
    ).eval()
    labels = np.where(batch["targets"] < 0, -100, batch["targets"]).astype(np.int64)
    loss = theirs(
        input_ids=torch.from_numpy(batch["inputs"].astype(np.int64)),
        attention_mask=torch.from_numpy(batch["segments"].astype(np.int64)),
        decoder_input_ids=torch.from_numpy(batch["decoder_inputs"].astype(np.int64)),
        labels=torch.from_numpy(labels),
    ).loss
    loss.backward()
    metrics = require_same_step(
        params, batch, config, theirs, lambda key, p: p.ndim >= 2 and "relative" not in key
    )
    assert int(metrics["count"]) == 28
    assert float(metrics["loss"]) == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_targets_are_those_of_transformers(name: str, text: TokenDataset, tmp_path: Path) -> None:
    """Greedily, for sources of two lengths at once; by beams, with the same sum of log p."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model, rng = MODELS[name], np.random.default_rng(1)
    # Larger weights, so that the tokens of a target differ.
    params, out = tiny.parameters(model, size=0.45), tmp_path / "hf"
    config = run_of(model)
    hf_export.export(config, 0, params, text.tokenizer, out, run=tmp_path, check=False)
    writer = Writer(model, COMPUTE, limit=OWN + 100, start=3, stop_ids=(2,))
    sources = [rng.integers(4, OWN, n).tolist() for n in (20, 11)]
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(out).eval()
    # Their cache has as many layers as the encoder, and fails for a deeper decoder.
    given: dict[str, Any] = {"max_new_tokens": 24, "do_sample": False, "use_cache": False}
    given["suppress_tokens"] = list(range(OWN + 100, model.vocab_size))
    found = greedy(params, writer, sources, max_tokens=24)
    for source, ours in zip(sources, found, strict=True):
        wanted = theirs.generate(torch.tensor([source]), **given)[0, 1:].tolist()
        stop = wanted.index(2) if 2 in wanted else len(wanted)
        assert ours.ids == wanted[:stop]
    assert len({*found[0].ids, *found[1].ids}) > 4
    best = beam(params, writer, sources[1], beams=4, max_tokens=24)
    ids = [3, *best.ids, *([2] if best.stopped else [])]
    with torch.no_grad():
        logits = theirs(
            torch.tensor([sources[1]]), decoder_input_ids=torch.tensor([ids[:-1]])
        ).logits[0]
    logits[:, OWN + 100 :] = -np.inf
    log_p = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    assert log_p.sum().item() == pytest.approx(best.log_prob, abs=1e-3)
    one = beam(params, writer, sources[0], beams=1, max_tokens=24)
    assert one.ids == found[0].ids
    with pytest.raises(UserError, match="1 to 96"):
        greedy(params, writer, [[5] * 97], max_tokens=4)


def test_what_is_not_t5_is_refused(folders: Any) -> None:
    raw = json.loads((folders["t5"][0] / "config.json").read_text())
    other = other_of(MODELS["t5"])
    assert other is not None
    assert other.from_hf(raw) == MODELS["t5"]
    for change, words in (
        ({"feed_forward_proj": "gated-silu"}, "gated-silu"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder"),
        ({"num_heads": 0}, "num_heads"),
        ({"feed_forward_proj": ["relu"]}, "feed_forward_proj"),
        ({"architectures": 1}, "architectures"),
    ):
        with pytest.raises(UserError, match=words):
            other.from_hf(raw | change)


def test_a_head_of_its_own_is_refused(folders: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    out = folders["t5-1.1"][0]
    weights = load_file(out / "model.safetensors")
    weights["lm_head.weight"] = weights["shared.weight"].copy()
    (tmp_path / "config.json").write_bytes((out / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors")
    hf_model.read(tmp_path)
    weights["lm_head.weight"] = weights["shared.weight"] + 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"'lm_head\.weight' with other values than 'shared\.weight'"
    ):
        hf_model.read(tmp_path)
    del weights["lm_head.weight"]
    weights["decoder.embed_tokens.weight"] = weights["shared.weight"] + 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"'decoder\.embed_tokens\.weight' with other values"):
        hf_model.read(tmp_path)


@pytest.mark.slow
def test_a_mesh_takes_the_same_step(text: TokenDataset) -> None:
    after = {}
    for parallel, count in ((ParallelConfig(), 1), (ParallelConfig(data=2, fsdp=2, tensor=2), 8)):
        config = run_of(MODELS["t5"], text.path, parallel=parallel)
        mesh = make_mesh(parallel, jax.devices()[:count])
        host = held_out_batches(text, config, mesh).at(0)
        abstract = abstract_state(config, mesh)
        state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract)
        state |= {"params": tiny.parameters(MODELS["t5"], size=0.1)}
        where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        token_bytes = np.ones(MODELS["t5"].vocab_size, np.int32)
        compiled = step.compile_train_step(config, mesh, token_bytes)
        arrays = objective_of(config).arrays
        made, metrics = compiled(jax.device_put(state, where), to_device(host, mesh, arrays))
        after[count] = jax.device_get((made["params"], metrics["loss"], metrics["grad_norm"]))
    assert tiny.relative_error(after[8], after[1]) < 2e-4


def test_flops_are_those_of_the_matrices() -> None:
    model = MODELS["t5-1.1"]
    S, T, D, W = 44, 10, 32, 40
    params = tiny.parameters(model)
    size = {
        path: leaf.size
        for path, leaf in (
            ("/".join(e.key for e in path), leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        )
        if leaf.ndim > 2
    }
    encoder = sum(n for path, n in size.items() if path.startswith("encoder"))
    source = sum(n for path, n in size.items() if path.endswith(("cross/attn/k", "cross/attn/v")))
    target = sum(n for path, n in size.items() if path.startswith("decoder")) - source
    scores = 4 * W * (2 * S * S + 3 * T * ((T + 1) / 2 + S))
    whole = 2 * (S * (encoder + source) + T * (target + D * model.vocab_size)) + scores
    data = run_of(model).data
    assert span_lengths(48, data.mask_rate, data.mean_span) == (S, T)
    assert train_flops(run_of(model)) == pytest.approx(3 * whole / 48)
