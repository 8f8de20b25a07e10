"""StableLM (Bellagente et al. 2024): LayerNorm, a quarter of each head rotated."""

from __future__ import annotations

from llm_jax.config import ModelConfig
from llm_jax.convert.families import names
from llm_jax.convert.families.family import FIELDS_BUT_HEAD_DIM, Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope


def _read(given: Keys) -> Fields:
    return {"parallel_block": "one_norm" if given["use_parallel_residual"] else "none"}


def _write(config: ModelConfig) -> Keys:
    return {"use_parallel_residual": config.parallel_block == "one_norm"}


STABLELM = Family(
    model_type="stablelm",
    architecture="StableLmForCausalLM",
    naming=Naming(names.LLAMA),
    fields=FIELDS_BUT_HEAD_DIM | {"norm_eps": "layer_norm_eps"},
    always={"norm": "layernorm"},
    defaults={
        "max_position_embeddings": 4096,
        "num_key_value_heads": 32,
        "layer_norm_eps": 1e-5,
    },
    fixed={"qk_layernorm": False},
    parts=(
        rope(fraction=0.25),
        activation(),
        biases(qkv="use_qkv_bias"),
        Part(_read, _write, {"use_parallel_residual": False}),
    ),
    heads_divide_width=True,
)
