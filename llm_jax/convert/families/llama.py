"""Llama 1 to 3 (Touvron et al. 2023, Grattafiori et al. 2024)."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    naming=Naming(names.LLAMA),
    defaults={"max_position_embeddings": 2048},
    parts=(
        rope(),
        activation(),
        biases(qkv="attention_bias", out="attention_bias", mlp="mlp_bias"),
    ),
    heads_divide_width=True,
)
