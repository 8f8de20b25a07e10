"""Random weights give the same logits here and in transformers, in both directions."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny
from family_models import built

from llm_jax.config import Llama3Rope, ModelConfig, MoeConfig, RunConfig, YarnRope
from llm_jax.convert import hf_export, hf_model, parity

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LLAMA = ModelConfig(
    vocab_size=600, num_layers=3, d_model=48, num_heads=4, num_kv_heads=2, head_dim=12, d_ff=80,
    max_seq_len=96, norm_eps=1e-5,
)  # fmt: skip
LLAMA3_ROPE = Llama3Rope(factor=8.0, original_max_seq_len=24)
YARN_ROPE = YarnRope(factor=4.0, original_max_seq_len=24)
GEMMA = dataclasses.replace(
    LLAMA,
    activation="geglu",
    norm_plus_one=True,
    scale_embeddings=True,
    tie_embeddings=True,
    head_dim=16,
)
OURS = {
    "llama": LLAMA,
    "llama-biases-geglu-tied": dataclasses.replace(
        LLAMA, activation="geglu", biases=("qkv", "out", "mlp"), tie_embeddings=True
    ),
    "llama-llama3-rope": dataclasses.replace(LLAMA, rope_theta=5e5, rope_scaling=LLAMA3_ROPE),
    "llama-yarn-wide-heads": dataclasses.replace(LLAMA, head_dim=20, rope_scaling=YARN_ROPE),
    "llama-qkv-bias": dataclasses.replace(LLAMA, biases=("qkv",)),
    "qwen3": dataclasses.replace(LLAMA, qk_norm=True, rope_theta=1e6, tie_embeddings=True),
    "qwen3-qkv-bias": dataclasses.replace(LLAMA, qk_norm=True, biases=("qkv",), head_dim=20),
    "qwen3-yarn-window-biases": dataclasses.replace(
        LLAMA, qk_norm=True, biases=("qkv", "out"), rope_scaling=YARN_ROPE,
        sliding_window=9, window_pattern="LG",
    ),
    "mistral": dataclasses.replace(LLAMA, sliding_window=7, num_kv_heads=1),
    "mistral-odd-width": dataclasses.replace(LLAMA, d_model=50),
    "ministral": dataclasses.replace(LLAMA, sliding_window=7, window_pattern="LLG"),
    "mixtral": dataclasses.replace(
        LLAMA, d_ff=40, moe=MoeConfig(experts=4, top_k=2, d_ff=40, balance_loss=0.02)
    ),
    "qwen3_moe": dataclasses.replace(
        LLAMA, qk_norm=True, tie_embeddings=True,
        moe=MoeConfig(experts=6, top_k=3, d_ff=24, renormalise=False, dense_layers=1),
    ),
    "gemma": GEMMA,
    "gemma2": dataclasses.replace(
        GEMMA, post_norm=True, attn_softcap=3.0, logit_softcap=5.0, attn_scale=24**-0.5,
        sliding_window=8, window_pattern="LG",
    ),
    "gpt2": dataclasses.replace(
        LLAMA, activation="gelu", norm="layernorm", positions="learned", num_kv_heads=4,
        biases=("qkv", "out", "mlp"), tie_embeddings=True,
    ),
    "gpt2-exact": dataclasses.replace(
        LLAMA, activation="gelu_exact", norm="layernorm", positions="learned", num_kv_heads=4,
        biases=("qkv", "out", "mlp"),
    ),
    "gpt2-untied": dataclasses.replace(
        LLAMA, activation="gelu", norm="layernorm", positions="learned", num_kv_heads=4,
        biases=("qkv", "out", "mlp"),
    ),
}  # fmt: skip
EXPECTED_TYPE = {name: name.split("-")[0] for name in OURS}


def run_of(model: ModelConfig) -> RunConfig:
    return tiny.run_config(model=model)


def params_of(model: ModelConfig):
    return tiny.parameters(model, size=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_exported_model_has_the_same_logits_and_comes_back(name, tokenizer, tmp_path):
    model, params = OURS[name], params_of(OURS[name])
    out = tmp_path / "hf"
    made = hf_export.export(run_of(model), 0, params, tokenizer, out, run=tmp_path)
    assert made.max_logit_difference <= 1e-4
    assert json.loads((out / "config.json").read_text())["model_type"] == EXPECTED_TYPE[name]
    assert sorted(made.files) == sorted(path.name for path in out.iterdir())

    back, read = hf_model.read(out)
    model, params, _ = hf_export.as_hugging_face_has_it(model, params)
    assert back == model
    assert max_leaf_difference(read, params) == 0


def max_leaf_difference(a, b) -> float:
    differences = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)
    return max(jax.tree.leaves(differences))


SMALL = {
    "vocab_size": 120, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
THEIRS = {
    "llama": ("LlamaConfig", {**SMALL, "attention_bias": True, "mlp_bias": True}),
    "llama3": ("LlamaConfig", {**SMALL, "rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {**SMALL, "head_dim": 12, "rope_parameters": YARN}),
    "qwen2": (
        "Qwen2Config",
        {**SMALL, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "mistral": ("MistralConfig", {**SMALL, "sliding_window": 6}),
    "mixtral": ("MixtralConfig", {**SMALL, "num_local_experts": 4, "sliding_window": 6}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**SMALL, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
         "decoder_sparse_step": 2, "norm_topk_prob": True},
    ),
    "gemma2": ("Gemma2Config", {**SMALL, "head_dim": 16, "sliding_window": 6}),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 120, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "gpt2-exact": (
        "GPT2Config",
        {"vocab_size": 120, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
         "activation_function": "gelu"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", THEIRS)
def test_imported_model_has_the_same_logits(name, tmp_path):
    model = built(*THEIRS[name])
    model.save_pretrained(tmp_path)
    tokens_BT = np.random.default_rng(1).integers(0, 120, (2, 64)).astype(np.int32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens_BT.astype(np.int64))).logits.numpy()
    config, params = hf_model.read(tmp_path)
    assert np.abs(parity.our_logits(params, config, tokens_BT) - theirs).max() <= 1e-4
