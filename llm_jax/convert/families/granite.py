"""Granite 3 (IBM 2024): Llama with factors on the embedding, scores, residuals and logits."""

from __future__ import annotations

from llm_jax.config import ModelConfig
from llm_jax.convert.families import names
from llm_jax.convert.families.family import FIELDS_BUT_HEAD_DIM, Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope


def _read(given: Keys) -> Fields:
    return {
        "embed_multiplier": float(given["embedding_multiplier"]),
        "residual_multiplier": float(given["residual_multiplier"]),
        "attn_scale": float(given["attention_multiplier"]),
        "logit_multiplier": 1 / given["logits_scaling"],
    }


def _write(config: ModelConfig) -> Keys:
    return {
        "embedding_multiplier": config.embed_multiplier,
        "residual_multiplier": config.residual_multiplier,
        "attention_multiplier": config.attn_scale or config.head_dim**-0.5,
        "logits_scaling": 1 / config.logit_multiplier,
    }


MULTIPLIERS = Part(
    _read,
    _write,
    {
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "logits_scaling": 1.0,
    },
)
GRANITE = Family(
    model_type="granite",
    architecture="GraniteForCausalLM",
    naming=Naming(names.LLAMA),
    fields=FIELDS_BUT_HEAD_DIM,
    defaults={"max_position_embeddings": 2048},
    parts=(
        rope(),
        activation(),
        biases(qkv="attention_bias", out="attention_bias", mlp="mlp_bias"),
        MULTIPLIERS,
    ),
)
