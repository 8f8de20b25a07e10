"""Gradients, and one step of AdamW, are those of transformers and torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from beside_torch import optim_config, our_step, their_step

from llm_jax.config import (
    DynamicRope,
    LatentConfig,
    Llama3Rope,
    ModelConfig,
    MoeConfig,
    YarnRope,
)
from llm_jax.convert.families import family_of
from llm_jax.convert.hf_config import to_hf
from llm_jax.convert.hf_export import write_weights
from llm_jax.convert.tensors import DTYPES, tensors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BASE = tiny.model_config(vocab_size=600)
MODELS = {
    "llama": dataclasses.replace(
        BASE, biases=("qkv", "out", "mlp"), rope_scaling=Llama3Rope(
            factor=8.0, original_max_seq_len=16
        ),
    ),
    "qwen3": dataclasses.replace(
        BASE, qk_norm=True, tie_embeddings=True, sliding_window=7,
        rope_scaling=YarnRope(factor=4.0, original_max_seq_len=16),
    ),
    "gpt2": dataclasses.replace(
        BASE, activation="gelu", norm="layernorm", positions="learned", num_kv_heads=8, head_dim=4,
        biases=("qkv", "out", "mlp"), tie_embeddings=True,
    ),
    "qwen2_moe": dataclasses.replace(
        BASE, biases=("qkv",), moe=MoeConfig(
            experts=4, top_k=2, d_ff=16, shared_d_ff=24, shared_gate=True, renormalise=False
        ),
    ),
    "deepseek_v3": dataclasses.replace(
        BASE, num_kv_heads=8, head_dim=12,
        latent=LatentConfig(kv_rank=16, q_rank=24, rope_dim=4, value_dim=6),
        moe=MoeConfig(
            experts=8, top_k=2, d_ff=16, shared_d_ff=16, groups=4, top_groups=2, scale=1.5,
            router="sigmoid", balance_rate=0.001, dense_layers=1,
        ),
    ),
    "gpt_oss": dataclasses.replace(
        BASE, activation="clamped_swiglu", biases=("qkv", "out", "mlp"), attn_sinks=True,
        sliding_window=7, window_pattern="LG", moe=MoeConfig(experts=4, top_k=2, d_ff=16),
    ),
}  # fmt: skip
ALIKE = {"num_kv_heads": 8, "head_dim": 4}
PARALLEL = {"norm": "layernorm", "parallel_block": "one_norm"}
# One family for each option that the three do not have.
OPTIONS = {
    "olmo3": {
        "pre_norm": False, "post_norm": True, "qk_norm": True, "qk_norm_over": "width",
        "sliding_window": 7, "window_pattern": "LG", "rope_local_theta": 100.0,
        "rope_scaling": YarnRope(factor=4.0, original_max_seq_len=16),
    },
    "olmo2": {"pre_norm": False, "post_norm": True, "qk_norm": True, "qk_norm_over": "width"},
    "olmo": {
        "norm": "layernorm", "norm_weights": "none", "qkv_clip": 0.4, "head_dim": 4,
        "rope_scaling": DynamicRope(factor=4.0, original_max_seq_len=16),
    },
    "apertus": {"activation": "xielu", "qk_norm": True},
    "hunyuan_v1_dense": {"qk_norm": True, "qk_norm_after_rope": True},
    "granite": {
        "embed_multiplier": 2.0, "residual_multiplier": 0.5, "logit_multiplier": 0.25,
        "attn_scale": 0.3, "head_dim": 4,
    },
    "cohere2": {
        **PARALLEL, "norm_weights": "scale", "head_dim": 4, "sliding_window": 7,
        "window_pattern": "LG", "rope_pattern": "RN", "tie_embeddings": True,
    },
    "nemotron": {
        "norm": "layernorm", "norm_plus_one": True, "activation": "relu2", "rotary_fraction": 0.5,
    },
    "gptj": {
        **PARALLEL, **ALIKE, "activation": "gelu", "biases": ("mlp", "unembed"),
    },
    "gpt_neox": {
        **PARALLEL, **ALIKE, "parallel_block": "two_norms", "activation": "gelu_exact",
        "rotary_fraction": 0.5, "biases": ("qkv", "out", "mlp"),
    },
    "bloom": {
        **ALIKE, "norm": "layernorm", "positions": "alibi", "embed_norm": True,
        "activation": "gelu", "d_ff": 128, "biases": ("qkv", "out", "mlp"), "tie_embeddings": True,
    },
    "opt": {
        **ALIKE, "norm": "layernorm", "positions": "learned", "position_offset": 2,
        "activation": "relu", "biases": ("qkv", "out", "mlp"), "tie_embeddings": True,
    },
    "nanochat": {
        "norm_weights": "none", "norm_eps": 1e-6, "embed_norm": True, "qk_norm": True,
        "qk_norm_after_rope": True, "activation": "relu2", "logit_softcap": 15.0, "head_dim": 4,
    },
}  # fmt: skip
MODELS |= {name: dataclasses.replace(BASE, **options) for name, options in OPTIONS.items()}
B, T = 2, 48


def batch_of(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tokens = rng.integers(3, 600, (B, T + 1)).astype(np.int32)
    return {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segments": np.ones((B, T), np.int32),
        "positions": np.tile(np.arange(T, dtype=np.int32), (B, 1)),
    }


def worst(model: ModelConfig, tree, theirs: dict) -> float:
    """Largest difference over all tensors, each relative to its tensor's largest value.

    Without rotary positions, softmax does not feel a bias of the keys: its gradient is rounding.
    The bias on the choice of experts has no gradient there: its balance is no part of the loss.
    """
    naming = family_of(model).naming
    theirs = {naming.older.get(name, name): value for name, value in theirs.items()}
    named = [one for one in tensors(model, family_of(model).model_type) if one.leaves]
    theirs = dict(as_on_file(theirs)) if model.moe else theirs
    buffers = {tensor.name for tensor in named if tensor.name.endswith("correction_bias")}
    assert {tensor.name for tensor in named} - buffers == set(theirs)
    errors = []
    for tensor in named:
        if tensor.name in buffers:
            continue
        wanted = theirs[tensor.name].detach().numpy()
        found = tensor.read(jax.device_get(tree), DTYPES["float32"])
        errors.append(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-4))
    return max(errors)


def as_on_file(theirs: dict) -> Iterator[tuple[str, Any]]:
    """transformers stacks experts of which each has tensors of its own on file."""
    for name, value in theirs.items():
        alone = name.endswith((".experts.gate_up_proj", ".experts.down_proj"))
        if not alone or f"{name}_bias" in theirs:
            yield name, value
            continue
        for i, expert in enumerate(value):
            halves = expert.chunk(2) if "gate_up" in name else [expert]
            for part, half in zip(name.split(".")[-1].split("_")[:-1], halves, strict=True):
                yield f"{name.rsplit('.', 1)[0]}.{i}.{part}_proj.weight", half


def decays(name: str, parameter) -> bool:
    """Matrices and the token table decay; norms, biases and learned positions do not."""
    fixed = ("wpe.weight", "embed_positions.weight", "_bias")
    return parameter.ndim >= 2 and not name.endswith(fixed)


SLOW = set(OPTIONS) - {"bloom", "olmo2"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in MODELS]
)
def test_gradients_and_one_adamw_step(name, tokenizer, tmp_path):
    model = MODELS[name]
    params = tiny.parameters(model, size=0.1)
    config = tiny.run_config(model=model, optim=optim_config(eps=1e-5))
    batch = batch_of(np.random.default_rng(0))

    made = to_hf(model, tokenizer, "float32")
    assert made["model_type"] == name
    (tmp_path / "config.json").write_text(json.dumps(made))
    write_weights(tmp_path, model, params, "float32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    logits = theirs(torch.from_numpy(batch["inputs"].astype(np.int64))).logits
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 600), torch.from_numpy(batch["targets"].astype(np.int64)).reshape(-1)
    )
    loss.backward()

    grads, metrics, after = our_step(params, batch, config)
    assert float(metrics["loss"]) == pytest.approx(loss.item(), abs=1e-5)
    assert worst(model, grads, {k: p.grad for k, p in theirs.named_parameters()}) <= 1e-4

    their_step(theirs, config.optim, decays)
    assert worst(model, after, dict(theirs.named_parameters())) <= 1e-4
