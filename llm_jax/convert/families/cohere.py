"""Cohere's Command R and Command R7B (2024): parallel blocks after one LayerNorm without bias.

On file, rotated pairs are neighbours. In the second, layers without a window have no positions.
"""

from __future__ import annotations

from llm_jax.config import ModelConfig
from llm_jax.convert.families import names
from llm_jax.convert.families.family import FIELDS_BUT_HEAD_DIM, Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import activation, biases, windows
from llm_jax.convert.families.rope import rope


def _read(given: Keys) -> Fields:
    return {"logit_multiplier": float(given["logit_scale"] or 1.0)}


def _write(config: ModelConfig) -> Keys:
    return {"logit_scale": config.logit_multiplier}


FIELDS_HERE = FIELDS_BUT_HEAD_DIM | {"norm_eps": "layer_norm_eps"}
ALWAYS = {"norm": "layernorm", "norm_weights": "scale", "parallel_block": "one_norm"}
DEFAULTS = {
    "max_position_embeddings": 8192,
    "layer_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
LOGITS = Part(_read, _write, {"logit_scale": 0.0625})
BIASES = biases(qkv="attention_bias", out="attention_bias")

COHERE = Family(
    model_type="cohere",
    architecture="CohereForCausalLM",
    naming=Naming(names.LLAMA, pairs="interleaved"),
    fields=FIELDS_HERE,
    always=ALWAYS,
    defaults=DEFAULTS,
    fixed={"use_qk_norm": False},
    parts=(rope(5e5), activation(), BIASES, LOGITS),
)
COHERE2 = Family(
    model_type="cohere2",
    architecture="Cohere2ForCausalLM",
    naming=Naming(names.LLAMA, pairs="interleaved"),
    fields=FIELDS_HERE,
    always=ALWAYS,
    defaults=DEFAULTS,
    parts=(
        rope(),
        activation(),
        BIASES,
        LOGITS,
        windows("LLLG", 4096, pattern_key="sliding_window_pattern", nope=True),
    ),
)
