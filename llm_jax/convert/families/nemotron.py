"""Nemotron 3 and 4 (Parmar et al. 2024): LayerNorm plus one, squared ReLU without a gate."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import FIELDS, Family, Naming
from llm_jax.convert.families.parts import PLAIN, activation, biases
from llm_jax.convert.families.rope import rope

NEMOTRON = Family(
    model_type="nemotron",
    architecture="NemotronForCausalLM",
    naming=Naming(names.LLAMA),
    fields=FIELDS | {"norm_eps": "norm_eps"},
    always={"norm": "layernorm", "norm_plus_one": True},
    defaults={"max_position_embeddings": 4096, "norm_eps": 1e-5},
    parts=(
        rope(fraction=0.5),
        activation(PLAIN, default="relu2"),
        biases(qkv="attention_bias", out="attention_bias", mlp="mlp_bias"),
    ),
)
