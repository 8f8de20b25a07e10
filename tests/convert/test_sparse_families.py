"""Experts, latent attention and sinks: quantised weights, other forms, and what is refused."""

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
from safetensors.numpy import load_file, save_file
from sparse_models import DEEPSEEK, MODELS, SMALL

from llm_jax.config import ModelConfig, MoeConfig, UserError, load
from llm_jax.convert import hf_export, hf_import, hf_model, parity
from llm_jax.convert.families import family_of, why_not_exportable
from llm_jax.convert.hf_config import from_hf
from llm_jax.convert.mxfp4 import numbers
from llm_jax.train.opened import open_run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENS_BT = np.random.default_rng(1).integers(3, 128, (2, 40)).astype(np.int32)


def test_mxfp4_numbers_are_those_of_the_format() -> None:
    """OCP Microscaling, tables 4 and 7: all codes, low half first, scales 2^(s - 127)."""
    bytes_16 = np.arange(16, dtype=np.uint8) | (np.arange(15, -1, -1, dtype=np.uint8) << 4)
    blocks = np.stack([bytes_16, bytes_16])[None, None]
    found = numbers(blocks, np.array([[[127, 130]]], np.uint8))
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    codes = np.array([*positive, *(-x for x in positive)], np.float32)
    once = np.stack([codes, codes[::-1]], axis=-1).reshape(-1)
    assert found.shape == (1, 64, 1)
    np.testing.assert_array_equal(found[0, :, 0], np.concatenate([once, 8 * once]))
    assert np.isnan(numbers(blocks, np.array([[[127, 255]]], np.uint8))[0, 32:]).all()


def quantised(folder: Path) -> None:
    """gpt-oss with random MXFP4 experts of width 32, as its checkpoints have them."""
    rng = np.random.default_rng(0)
    kind, fields = MODELS["gpt_oss"]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**{**fields, "intermediate_size": 32})
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, _, outputs = tensors.pop(name).shape
        shape = (experts, outputs, 1)
        tensors[f"{name}_blocks"] = rng.integers(0, 256, (*shape, 16), np.uint8)
        tensors[f"{name}_scales"] = rng.integers(116, 123, shape, np.uint8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(raw))


def test_mxfp4_weights_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    quantised(tmp_path)
    config, params = hf_model.read(tmp_path)
    theirs = parity.their_logits(tmp_path, TOKENS_BT)
    assert np.abs(theirs).max() > 0.1
    assert np.abs(parity.our_logits(params, config, TOKENS_BT) - theirs).max() <= 1e-4
    for layered, whole in zip(
        *map(jax.tree.leaves, (hf_model.open_model(tmp_path).layers(), params)), strict=True
    ):
        assert layered.dtype == np.float32
        for place, part in layered.parts():
            np.testing.assert_array_equal(part, whole[place])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.layers.0.mlp.experts.down_proj_scales"), "not None"),
        (
            lambda t: t.update(
                {"model.layers.0.mlp.experts.down_proj_scales": np.zeros((4, 32, 2), np.uint8)}
            ),
            "not [4, 32, 2]",
        ),
        (lambda t: t.update({"model.norm.weight": np.zeros(32, np.uint8)}), "has type U8"),
        (
            lambda t: t.update(
                {
                    name: t[name].astype(np.float32)
                    for name in t
                    if name.endswith(("down_proj_blocks", "down_proj_scales"))
                }
            ),
            "has type F32, but quantised weights are U8",
        ),
    ],
)
def test_pairs_that_do_not_fit_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    quantised(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as error:
        hf_model.read(tmp_path)
    assert words in str(error.value)
    assert str(tmp_path) in str(error.value)


def raw_of(name: str, **changes: Any) -> dict[str, Any]:
    kind, fields = MODELS[name]
    raw = getattr(transformers, kind)(**fields).to_dict()
    return raw | changes


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "deepseek_v3",
            {"quantization_config": {"quant_method": "gptq"}},
            "config.json has quantization_config with quant_method 'gptq'",
        ),
        ("deepseek_v2", {"quantization_config": {"quant_method": "mxfp4"}}, "deepseek_v2"),
        ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method 'noaux_tc': supported are"),
        ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob = True: only False"),
        ("deepseek_v2", {"n_group": None}, "without n_group and topk_group: give both"),
        ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func = 'softmax': only 'sigmoid'"),
        ("deepseek_v3", {"rope_interleave": False}, "rope_interleave = False: only True"),
        ("deepseek_v3", {"attention_bias": True}, "attention_bias = True: only False"),
        (
            "deepseek_v3",
            {"topk_group": 9},
            "config.json does not describe a model that can be built: model.moe.top_groups is 9",
        ),
        ("deepseek_v3", {"kv_lora_rank": 16.5}, "kv_lora_rank is 16.5, but must be a whole"),
        ("gpt_oss", {"swiglu_limit": 6.0}, "swiglu_limit = 6.0: only 7.0"),
        ("gpt_oss", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv = 8.0: only None"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size"),
        ("glm4_moe", {"scoring": "odd"}, "scoring = 'odd', which this importer does not know"),
    ],
)
def test_options_that_are_not_supported_are_named(name: str, changes: dict, words: str) -> None:
    with pytest.raises(UserError) as error:
        from_hf(raw_of(name, **changes))
    assert words in str(error.value)


def test_keys_of_published_configs_are_known() -> None:
    """Of DeepSeek-V3's and gpt-oss's own config.json, beside what transformers writes."""
    published = {
        "deepseek_v3": {
            "ep_size": 1, "moe_layer_freq": 1, "scoring_func": "sigmoid", "seq_aux": True,
            "topk_method": "noaux_tc", "aux_loss_alpha": 0.001, "num_nextn_predict_layers": 1,
            "pretraining_tp": 1,
        },
        "gpt_oss": {"experts_per_token": 2, "initial_context_length": 4096},
    }  # fmt: skip
    for name, keys in published.items():
        assert from_hf(raw_of(name, **keys)) == from_hf(raw_of(name))


SHARED = MoeConfig(experts=6, top_k=2, d_ff=12, shared_d_ff=24, renormalise=False, dense_layers=1)
FORMS = {
    "qwen2_moe": tiny.model_config(num_layers=3, vocab_size=600, moe=SHARED),
    "deepseek_v3": from_hf(raw_of("deepseek_v3")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_transformers_has_computes_the_same(name, tokenizer, tmp_path) -> None:
    """Shared experts without a gate (DeepSeekMoE), and sigmoids without a bias on the choice."""
    model = FORMS[name]
    if name == "deepseek_v3":
        assert model.moe is not None
        moe = dataclasses.replace(model.moe, balance_rate=0.0)
        model = dataclasses.replace(model, vocab_size=600, moe=moe)
    params = tiny.parameters(model, size=0.1)
    out = tmp_path / "hf"
    run = tiny.run_config(model=model)
    made = hf_export.export(run, 0, params, tokenizer, out, run=tmp_path)
    assert made.max_logit_difference is not None
    assert made.max_logit_difference <= 1e-4
    assert json.loads((out / "config.json").read_text())["model_type"] == name
    back, read = hf_model.read(out)
    tokens_BT = np.random.default_rng(1).integers(3, 600, (2, 40)).astype(np.int32)
    ours, theirs = (
        parity.our_logits(jax.tree.map(jnp.asarray, tree), config, tokens_BT)
        for tree, config in ((params, model), (read, back))
    )
    assert np.abs(ours - theirs).max() <= 1e-5


def test_the_shipped_mixtures_of_experts_have_a_way_out() -> None:
    for name in ("deepseek_moe_16b", "mixtral_8x7b"):
        assert why_not_exportable(load(name).model) is None


def test_a_shared_width_of_no_whole_expert_has_no_class() -> None:
    raw = {**raw_of("deepseek_v3"), **DEEPSEEK, **SMALL}
    model = from_hf(raw | {"num_key_value_heads": 4})
    assert model.moe is not None
    odd = dataclasses.replace(model, moe=dataclasses.replace(model.moe, shared_d_ff=13))
    assert "moe" in str(why_not_exportable(odd))
    with pytest.raises(UserError, match=r"lacks model\.moe"):
        family_of(odd)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepseek_v3", "glm4_moe"])
def test_layers_that_predict_further_tokens_are_left_out_and_that_is_said(
    name, tokenizer, tmp_path, capsys
) -> None:
    """As published checkpoints have them: after the last layer, with a head."""
    source, run = tmp_path / "source", tmp_path / "run"
    kind, fields = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**{**fields, "vocab_size": 600})
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(source)
    tensors = load_file(source / "model.safetensors")
    layers = config.num_hidden_layers
    last, further = f"model.layers.{layers - 1}.", f"model.layers.{layers}."
    extra = {further + key.removeprefix(last): t for key, t in tensors.items() if last in key}
    for key in ("eh_proj", "enorm", "hnorm", "shared_head.norm", "shared_head.head"):
        extra[f"{further}{key}.weight"] = np.ones((32,), np.float32)
    save_file({**tensors, **extra}, source / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((source / "config.json").read_text()) | {"num_nextn_predict_layers": 1}
    (source / "config.json").write_text(json.dumps(raw))
    made = hf_import.import_run(source, run, tokenizer, check=True)
    assert made.max_logit_difference is not None and made.max_logit_difference <= 1e-4
    said = capsys.readouterr().err
    assert f"{len(extra)} tensors of layers that predict further tokens" in said
    assert f"num_nextn_predict_layers 1, from {further[:-1]}" in said
    with open_run(run, scratch=tmp_path / "out") as stored:
        out = hf_export.export(
            stored.config, 0, stored.params, stored.tokenizer, tmp_path / "out", run=run,
            check=False,
        )  # fmt: skip
    assert "num_nextn_predict_layers is 0" in out.notes[-1]
    assert json.loads((tmp_path / "out/config.json").read_text())["num_nextn_predict_layers"] == 0
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() == tensors.keys()
    for key, values in after.items():
        np.testing.assert_array_equal(tensors[key], values, err_msg=key)

    for number in (0, "1", -1):
        (source / "config.json").write_text(json.dumps(raw | {"num_nextn_predict_layers": number}))
        words = (
            "that its config.json does not use" if number == 0 else "num_nextn_predict_layers is"
        )
        with pytest.raises(UserError, match=words):
            hf_model.read(source)


def test_a_bias_of_the_last_layer_only_goes_out_with_the_others_as_another_class(
    tokenizer, tmp_path
) -> None:
    """GPT-NeoX Japanese after training, whose class has no bias in the other layers."""
    model = ModelConfig(
        vocab_size=600, num_layers=2, d_model=32, num_heads=4, num_kv_heads=4, head_dim=8,
        d_ff=64, max_seq_len=64, norm="layernorm", activation="gelu_exact", biases=("out",),
        tie_embeddings=True,
    )  # fmt: skip
    params, run = tiny.parameters(model, size=0.1), tiny.run_config(model=model)
    params["blocks"]["attn"]["o_bias"][0] = 0
    made = hf_export.export(run, 0, params, tokenizer, tmp_path / "a", run=tmp_path)
    assert made.architecture == "GPTNeoXJapaneseForCausalLM"
    params["blocks"]["attn"]["o_bias"][0, 3] = 0.5
    with pytest.raises(UserError, match=r"last layer, and this .* with --as gpt_neox"):
        hf_export.export(run, 0, params, tokenizer, tmp_path / "b", run=tmp_path)
    made = hf_export.export(
        run, 0, params, tokenizer, tmp_path / "b", run=tmp_path, as_class="gpt_neox"
    )
    assert made.max_logit_difference <= 1e-4


def test_fp8_weights_are_read_with_their_factors(tokenizer, tmp_path, capsys) -> None:
    """DeepSeek-V3 as it is published: matrices in FP8, with a factor for each block."""
    from safetensors.torch import save_file as save_torch

    plain, packed, run = tmp_path / "plain", tmp_path / "packed", tmp_path / "run"
    kind, fields = MODELS["deepseek_v3"]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**{**fields, "vocab_size": 600})
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(plain)
    tensors, stored = load_file(plain / "model.safetensors"), {}
    for name, values in list(tensors.items()):
        if not name.endswith(("_proj.weight", "_mqa.weight")):
            stored[name] = torch.from_numpy(values)
            continue
        rows, columns = (-(-size // 16) for size in values.shape)
        factors = np.random.default_rng(rows).uniform(0.5, 2, (rows, columns)).astype(np.float32)
        spread = factors.repeat(16, 0).repeat(16, 1)[: values.shape[0], : values.shape[1]]
        eight = torch.from_numpy(values / spread).to(torch.float8_e4m3fn)
        stored |= {name: eight, f"{name}_scale_inv": torch.from_numpy(factors)}
        tensors[name] = eight.float().numpy() * spread
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    packed.mkdir()
    save_torch(stored, packed / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((plain / "config.json").read_text())
    blocks = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16]}
    (packed / "config.json").write_text(json.dumps(raw | {"quantization_config": blocks}))
    model, params = hf_model.read(packed)
    jax.tree.map(np.testing.assert_array_equal, params, hf_model.read(plain)[1])
    theirs = parity.their_logits(plain, TOKENS_BT)
    assert np.abs(parity.our_logits(params, model, TOKENS_BT) - theirs).max() <= 1e-4
    made = hf_import.import_run(packed, run, tokenizer, check=True)
    assert "FP8" in str(made.not_compared)

    for size, words in (([16, 0], "weight_block_size [16, 0]"), ([32, 32], "in FP8, which needs")):
        wrong = raw | {"quantization_config": blocks | {"weight_block_size": size}}
        (packed / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError) as error:
            hf_model.read(packed)
        assert words in str(error.value)
