"""SmolLM3 (Bakouch et al. 2025): each fourth layer has no positions."""

from __future__ import annotations

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import activation, biases, shortest
from llm_jax.convert.families.rope import rope


def _read(given: Keys) -> Fields:
    """`no_rope_layers` is 1 for layers with positions."""
    layers, every = given["num_hidden_layers"], given["no_rope_layer_interval"]
    flags = given["no_rope_layers"]
    if flags is None:
        flags = [int((i + 1) % every != 0) for i in range(layers)]
    if len(flags) != layers or not set(flags) <= {0, 1}:
        raise UserError(
            f"config.json has no_rope_layers {flags!r}: it must be 0 or 1 for each of {layers} "
            "layers."
        )
    if "sliding_attention" in (given["layer_types"] or ()):
        raise UserError("config.json has layer_types with sliding_attention: not supported.")
    return {"rope_pattern": shortest("".join("NR"[flag] for flag in flags))}


def _write(config: ModelConfig) -> Keys:
    return {"no_rope_layers": [int(rotation is not None) for rotation in config.rotations]}


SMOLLM3 = Family(
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    naming=Naming(names.LLAMA),
    defaults={
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    },
    fixed={"use_sliding_window": False},
    parts=(
        rope(2e6),
        activation(),
        biases(qkv="attention_bias", out="attention_bias", mlp="mlp_bias"),
        Part(
            _read,
            _write,
            {"no_rope_layers": None, "no_rope_layer_interval": 4, "layer_types": None},
        ),
    ),
)
