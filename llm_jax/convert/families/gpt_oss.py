"""gpt-oss (Agarwal et al. 2025): attention sinks, and experts with biases and a clamped SwiGLU. All
experts of a layer are one tensor, whose columns alternate between gate and up."""

from __future__ import annotations

import dataclasses

from llm_jax.convert.families import names
from llm_jax.convert.families.experts import every_layer
from llm_jax.convert.families.family import Family, Fields, Keys, Naming
from llm_jax.convert.families.parts import activation, biases, windows
from llm_jax.convert.families.rope import rope

ATTENTION = biases(default=True, qkv="attention_bias", out="attention_bias")
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def _read(given: Keys) -> Fields:
    """Experts always have biases."""
    return {"biases": (*ATTENTION.read(given)["biases"], "mlp")}


GPT_OSS = Family(
    model_type="gpt_oss",
    architecture="GptOssForCausalLM",
    naming=Naming(
        names.LLAMA
        | {
            "blocks/attn/sinks": "model.layers.{}.self_attn.sinks",
            "blocks/moe/router": "model.layers.{}.mlp.router.weight",
            "blocks/moe/router_bias": "model.layers.{}.mlp.router.bias",
            "blocks/moe/gate": "model.layers.{}.mlp.experts.gate_up_proj",
            "blocks/moe/up": "model.layers.{}.mlp.experts.gate_up_proj",
            "blocks/moe/gate_bias": "model.layers.{}.mlp.experts.gate_up_proj_bias",
            "blocks/moe/up_bias": "model.layers.{}.mlp.experts.gate_up_proj_bias",
            "blocks/moe/down": "model.layers.{}.mlp.experts.down_proj",
            "blocks/moe/down_bias": "model.layers.{}.mlp.experts.down_proj_bias",
        },
        experts="alternating",
    ),
    always={"attn_sinks": True},
    defaults={"max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "head_dim": 64},
    fixed={"swiglu_alpha": 1.702, "swiglu_limit": 7.0},
    parts=(
        rope(150_000.0, extra=YARN),
        activation({"clamped_swiglu": "silu"}),
        dataclasses.replace(ATTENTION, read=_read),
        windows("LG", 128),
        every_layer(experts=128, top_k=4),
    ),
    aliases={"num_experts": "num_local_experts"},
    quantised=("mxfp4",),
)
