"""Arcee's AFM (Arcee AI 2025): Llama whose MLP is a squared ReLU without a gate."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import PLAIN, activation, biases
from llm_jax.convert.families.rope import rope

ARCEE = Family(
    model_type="arcee",
    architecture="ArceeForCausalLM",
    naming=Naming(names.LLAMA),
    defaults={"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    parts=(
        rope(),
        activation(PLAIN, default="relu2"),
        biases(qkv="attention_bias", out="attention_bias", mlp="mlp_bias"),
    ),
    heads_divide_width=True,
)
