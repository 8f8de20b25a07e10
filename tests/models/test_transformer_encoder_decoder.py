"""The original Transformer: beside transformers' Marian and BART, packed pairs, meshes, counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from beside_torch import optim_config, require_same_step
from verb_calls import call

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    OptimConfig,
    ParallelConfig,
    TransformerEncoderDecoderConfig,
    UserError,
    from_json,
    to_json,
)
from llm_jax.convert import hf_export, hf_import, hf_model
from llm_jax.convert.others import other_named, other_of
from llm_jax.convert.own_tokenizer import tokenizer_of
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers.sentinels import start_id
from llm_jax.facts.train_flops import train_flops
from llm_jax.infer.sources_to_targets import Writer, beam, greedy
from llm_jax.models.encoder_decoder.transformer import sinusoids
from llm_jax.models.protocol import Context, model_of
from llm_jax.objectives.objective import objective_of
from llm_jax.objectives.spans import pair_rows
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.feed import to_device
from llm_jax.train.load import load_run
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics
from llm_jax.train.step import gradients

OWN = tiny.VOCAB
MARIAN = TransformerEncoderDecoderConfig(
    vocab_size=OWN + 128, num_layers=2, num_decoder_layers=2, d_model=32, num_heads=4, d_ff=48,
    max_seq_len=64,
)  # fmt: skip
BART = dataclasses.replace(
    MARIAN, activation="gelu_exact", positions="learned", scale_embeddings=False, embed_norm=True,
    target_start="eos",
)  # fmt: skip
MODELS = {"marian": MARIAN, "bart": BART}
CLASSES = {"marian": "MarianMTModel", "bart": "BartForConditionalGeneration"}
BOTH = pytest.mark.parametrize("name", MODELS)
COMPUTE = tiny.compute_config()
LENGTHS = ((17, 9), (30, 14), (25, 5), (8, 12))


def run_of(model: Any, out: Any = "unused", dataset: Any = "unused", **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "model": model,
        "objective": "spans",
        "data": DataConfig(path=str(dataset), seq_len=40, batch_size=8),
        "checkpoint": CheckpointConfig(every=4),
        "steps": 4,
    }
    return tiny.run_config(out, dataset, **(fields | changes))


def pairs(lengths: Any = LENGTHS) -> Any:
    """Sources and targets of different lengths, with padding; targets begin with </s>."""
    rng = np.random.default_rng(0)
    sources, targets = (
        [rng.integers(4, OWN, pair[i], dtype=np.int32) for pair in lengths] for i in (0, 1)
    )
    return pair_rows(sources, targets, 30, 16, start=2, pad=3)


def logits(params: Any, batch: Any, model: Any) -> np.ndarray:
    family = model_of(model)
    hidden = family.forward(params, batch, model, Context(COMPUTE))
    return np.asarray(family.logits(hidden.x_BTD, params, model))


@pytest.fixture(scope="module")
def text(tiny_dataset: Path) -> TokenDataset:
    return TokenDataset.open(tiny_dataset)


@pytest.fixture(scope="module")
def folders(text: TokenDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name → its folder, its parameters and what `export` said."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    made = {}
    for name, model in MODELS.items():
        params, out = tiny.parameters(model, size=0.3), tmp_path_factory.mktemp(name) / "hf"
        said = hf_export.export(run_of(model), 0, params, text.tokenizer, out, run=out.parent)
        made[name] = (out, params, said)
    return made


def loaded(name: str, folders: Any) -> Any:
    import transformers

    return (
        getattr(transformers, CLASSES[name])
        .from_pretrained(folders[name][0], attn_implementation="eager")
        .eval()
    )


@pytest.mark.slow
@BOTH
def test_it_goes_out_and_comes_back(name: str, folders: Any, text: TokenDataset) -> None:
    import transformers

    out, params, said = folders[name]
    assert said.architecture == CLASSES[name]
    assert said.max_logit_difference < 1e-4
    model, back = hf_model.read(out)
    assert model == MODELS[name]
    assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
    begin = {"marian": text.tokenizer.pad_id, "bart": text.tokenizer.eos_id}[name]
    for file in ("config.json", "generation_config.json"):
        raw = json.loads((out / file).read_text())
        found = [raw[f"{key}_token_id"] for key in ("decoder_start", "eos", "pad", "bos")]
        assert found == [begin, 2, 3, 1]
    assert transformers.GenerationConfig.from_pretrained(out).forced_eos_token_id is None
    assert loaded(name, folders).config.forced_eos_token_id is None
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    assert theirs("import x", add_special_tokens=False).input_ids == text.tokenizer.encode(
        "import x"
    )
    again = hf_import.import_run(out, out.parent / "run", tokenizer_of(out), check=True).config
    assert (again.objective, again.model) == ("spans", model)


def test_sines_and_cosines_are_those_of_marian(folders: Any) -> None:
    table = loaded("marian", folders).model.encoder.embed_positions.weight.detach().numpy()
    np.testing.assert_allclose(sinusoids(64, 32), table, atol=1e-6)


@pytest.mark.slow
@BOTH
def test_gradients_and_one_adamw_step(name: str, folders: Any) -> None:
    """With label smoothing, and padding of sources and targets, beside torch's."""
    import torch

    _, params, _ = folders[name]
    optim = dataclasses.replace(optim_config(eps=1e-4), label_smoothing=0.1)
    batch, theirs = pairs(), loaded(name, folders)
    # A buffer there, a parameter here; sines and cosines are frozen there, and no parameter here.
    bias = theirs.final_logits_bias
    del theirs.final_logits_bias
    theirs.final_logits_bias = torch.nn.Parameter(bias)
    for side in (theirs.model.encoder, theirs.model.decoder):
        if name == "marian":
            side.embed_positions.register_buffer(
                "weight", side.embed_positions._parameters.pop("weight").data
            )
    given = {key: torch.from_numpy(array.astype(np.int64)) for key, array in batch.items()}
    made = theirs(
        input_ids=given["inputs"],
        attention_mask=given["segments"],
        decoder_input_ids=given["decoder_inputs"],
    ).logits
    labels = torch.where(given["targets"] < 0, -100, given["targets"])
    smooth, plain = (
        torch.nn.functional.cross_entropy(made.flatten(0, 1), labels.flatten(), label_smoothing=e)
        for e in (0.1, 0.0)
    )
    smooth.backward()
    tables = ("embed_positions", "final_logits_bias")
    metrics = require_same_step(
        params,
        batch,
        run_of(MODELS[name], optim=optim),
        theirs,
        lambda key, p: p.ndim >= 2 and not any(table in key for table in tables),
    )
    assert int(metrics["count"]) == 40
    assert float(metrics["loss"]) == pytest.approx(plain.item(), abs=1e-5)


@pytest.mark.slow
@BOTH
def test_targets_are_those_of_transformers(name: str, folders: Any, text: TokenDataset) -> None:
    """Greedily, for sources of two lengths at once; by beams, with the same sum of log p."""
    import torch

    model, rng, params = MODELS[name], np.random.default_rng(1), folders[name][1]
    start = start_id(text.tokenizer, model)
    writer = Writer(model, COMPUTE, limit=OWN + 100, start=start, stop_ids=(2,))
    sources = [rng.integers(4, OWN, n).tolist() for n in (20, 11)]
    theirs = loaded(name, folders)
    given: dict[str, Any] = {"max_new_tokens": 16, "do_sample": False}
    given["suppress_tokens"] = list(range(OWN + 100, model.vocab_size))
    found = greedy(params, writer, sources, max_tokens=16)
    for source, ours in zip(sources, found, strict=True):
        wanted = theirs.generate(torch.tensor([source]), **given)[0, 1:].tolist()
        stop = wanted.index(2) if 2 in wanted else len(wanted)
        assert ours.ids == wanted[:stop]
    assert found[0].ids != found[1].ids
    best = beam(params, writer, sources[1], beams=3, max_tokens=16, length_penalty=0.6)
    ids = [start, *best.ids, *([2] if best.stopped else [])]
    with torch.no_grad():
        made = theirs(torch.tensor([sources[1]]), decoder_input_ids=torch.tensor([ids[:-1]]))
    made.logits[..., OWN + 100 :] = -np.inf
    log_p = torch.log_softmax(made.logits[0], -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    assert log_p.sum().item() == pytest.approx(best.log_prob, abs=1e-3)
    for bad in ({"sources": [[5] * 65], "max_tokens": 4}, {"sources": [[5]], "max_tokens": 65}):
        with pytest.raises(UserError, match="64"):
            greedy(params, writer, **bad)


@pytest.mark.slow
@BOTH
def test_steps_give_the_logits_of_the_whole_pass(name: str) -> None:
    """Token by token with the caches, for targets whose tokens all differ."""
    model, family = MODELS[name], model_of(MODELS[name])
    params, batch = jax.device_put(tiny.parameters(model, size=0.3)), pairs()
    wanted = logits(params, batch, model)
    source, own = family.begin(params, batch["inputs"], batch["segments"], 16, model, COMPUTE)

    @jax.jit
    def step(token_B: Any, i: Any, own: Any) -> Any:
        x_BD, own = family.step(params, token_B, i, source, own, model, COMPUTE)
        return family.logits(x_BD, params, model), own

    for i in range(14):
        found, own = step(batch["decoder_inputs"][:, i], np.int32(i), own)
        rows = batch["decoder_segments"][:, i] > 0
        np.testing.assert_allclose(found[rows], wanted[rows, i], atol=1e-4)


@pytest.mark.slow
@BOTH
def test_packed_pairs_do_not_see_each_other(name: str) -> None:
    """The first two pairs in one row, behind each other: positions begin anew."""
    model = MODELS[name]
    params, batch = tiny.parameters(model, size=0.3), pairs()
    packed = {}
    for key, ends in {"inputs": (17, 30), "decoder_inputs": (9, 14)}.items():
        packed[key] = np.concatenate([batch[key][i, :end] for i, end in enumerate(ends)])[None]
        numbers = key.replace("inputs", "segments")
        packed[numbers] = np.repeat(np.array([1, 2], np.int32), ends)[None]
    found, alone = logits(params, packed, model)[0], logits(params, batch, model)
    np.testing.assert_allclose(found[:9], alone[0, :9], atol=1e-4)
    np.testing.assert_allclose(found[9:], alone[1, :14], atol=1e-4)


@pytest.mark.slow
def test_it_trains_with_the_papers_schedule(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optim = OptimConfig(
        learning_rate=3e-3, warmup_steps=8, schedule="inverse_sqrt", label_smoothing=0.1
    )
    out = tmp_path / "run"
    train(run_of(MARIAN, out, tiny_dataset, optim=optim, steps=12))
    losses = [r["loss"] for r in read_metrics(out / "metrics.jsonl") if r["split"] == "train"]
    assert losses[-1] < losses[0] - 0.3
    flags = ("--prompt", "import <extra_id_0>", "--max-tokens", 5, "--json", "--beams", 2)
    code, said, err = call(capsys, "generate", out, *flags)
    assert code == 0, err
    assert 0 < len(json.loads(said)["samples"][0]["ids"]) <= 5
    code, _, err = call(capsys, "generate", out, "--prompt", "x", "--temperature", 0,
                        "--max-tokens", 65)  # fmt: skip
    assert code == 2
    assert "positions for 64" in err
    assert load_run(out).config.model == MARIAN


@pytest.mark.slow
@BOTH
def test_a_mesh_of_eight_gives_the_gradients_of_one(name: str, tiny_dataset: Path) -> None:
    model, batch, found = MODELS[name], pairs(LENGTHS * 2), []
    params = tiny.parameters(model, size=0.2)
    for parallel in (ParallelConfig(), ParallelConfig(fsdp=4, tensor=2)):
        config = run_of(model, parallel=parallel)
        mesh = make_mesh(parallel, jax.devices()[: 8 if parallel.fsdp > 1 else 1])
        placed = to_device(batch, mesh, objective_of(config).arrays)
        with jax.set_mesh(mesh):
            found.append(jax.jit(lambda p, b, c=config: gradients(p, b, c))(params, placed))
    assert tiny.relative_error(found[1], found[0], least=1e-3) < 2e-4


def test_what_cannot_be_computed_is_refused(
    tiny_dataset: Path, tmp_path: Path, folders: Any, text: TokenDataset
) -> None:
    for axis in ("context", "pipeline"):
        parallel = ParallelConfig(**{axis: 2})
        with pytest.raises(ConfigError, match=f"parallel.{axis} is 2"):
            train(run_of(MARIAN, tmp_path / axis, tiny_dataset, parallel=parallel))
    with pytest.raises(ConfigError, match=r"model\.max_seq_len is 20, .* up to 30 tokens"):
        short = dataclasses.replace(MARIAN, max_seq_len=20)
        jax.eval_shape(lambda p: logits(p, pairs(), short), tiny.parameters(short))
    with pytest.raises(ConfigError, match=r"model\.d_model is 33, which model\.num_heads = 2"):
        dataclasses.replace(MARIAN, d_model=33, num_heads=2)
    with pytest.raises(ConfigError, match=r"model\.d_model is 33, .* half each"):
        dataclasses.replace(MARIAN, d_model=33, num_heads=3)
    with pytest.raises(ConfigError, match="set objective to 'spans'"):
        run_of(MARIAN, objective="next_token")
    with pytest.raises(UserError, match="of which transformers has no class"):
        other_of(dataclasses.replace(MARIAN, embed_norm=True))
    config = run_of(BART)
    assert from_json(to_json(config), type(config)) == config
    for name in MODELS:
        raw, other = json.loads((folders[name][0] / "config.json").read_text()), other_named(name)
        assert other is not None
        assert other.from_hf(raw) == MODELS[name]
        for change, words in (
            ({"activation_function": "swish"}, "'swish': supported are relu, gelu"),
            ({"activation_function": ["relu"]}, "activation_function"),
            ({"decoder_ffn_dim": 64}, "decoder_ffn_dim = 64"),
            ({"normalize_before": True}, "normalize_before"),
            ({"decoder_start_token_id": 7}, "decoder_start_token_id = 7"),
            ({"encoder_layers": "2"}, "num_layers"),
        ):
            with pytest.raises(UserError, match=words):
                other.from_hf(raw | change)
    with pytest.raises(UserError, match="share_encoder_decoder_embeddings"):
        other_named("marian").from_hf(raw | {"share_encoder_decoder_embeddings": False})  # type: ignore[union-attr]
    copy = tmp_path / "wrong"
    copy.mkdir()
    for path in folders["marian"][0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    raw = json.loads((copy / "config.json").read_text())
    changed = raw | {"pad_token_id": 5, "decoder_start_token_id": 5}
    (copy / "config.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="decoder_start_token_id 5, but"):
        hf_import.import_run(copy, tmp_path / "new", text.tokenizer, check=False)


def test_flops_are_those_of_the_matrices() -> None:
    S, T, D, V = 37, 9, 32, MARIAN.vocab_size
    attention, mlp = 4 * D * D, 2 * D * MARIAN.d_ff
    encoder = S * (2 * (attention + mlp) + 4 * D * S)
    decoder = T * (2 * (6 * D * D + mlp) + 4 * D * ((T + 1) / 2 + S)) + S * 2 * 2 * D * D
    whole = 2 * (encoder + decoder) + T * 2 * D * V
    assert train_flops(run_of(MARIAN)) == pytest.approx(3 * whole / 40)
    size = sum(leaf.size for leaf in jax.tree.leaves(tiny.parameters(MARIAN)) if leaf.ndim > 2)
    biases = 2 * 3 * 3 * D  # of queries, keys and values of three attentions, two layers each
    assert size - biases == 2 * (attention + mlp) + 2 * (2 * attention + mlp)
