"""ERNIE 4.5 without experts (Baidu 2025). On file, rotated pairs are neighbours."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

ERNIE4_5 = Family(
    model_type="ernie4_5",
    architecture="Ernie4_5ForCausalLM",
    naming=Naming(names.LLAMA, pairs="interleaved"),
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    parts=(rope(5e5), activation(), biases(qkv="use_bias", out="use_bias", mlp="use_bias")),
)
