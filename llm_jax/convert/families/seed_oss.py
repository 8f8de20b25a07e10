"""Seed-OSS (ByteDance Seed 2025): Llama with biases on queries, keys and values."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

SEED_OSS = Family(
    model_type="seed_oss",
    architecture="SeedOssForCausalLM",
    naming=Naming(names.LLAMA),
    defaults={
        "max_position_embeddings": 524288,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_bias": True,
    },
    parts=(
        rope(),
        activation(),
        biases(qkv="attention_bias", out="attention_out_bias", mlp="mlp_bias"),
    ),
)
