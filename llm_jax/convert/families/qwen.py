"""Qwen2, Qwen3 and Qwen3 with experts (Yang et al. 2024, 2025)."""

from __future__ import annotations

from llm_jax.config import ModelConfig
from llm_jax.convert.families import names
from llm_jax.convert.families.experts import QWEN_EXPERTS, SPARSE
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import activation, biases, windows, windows_of, write_windows
from llm_jax.convert.families.rope import rope

LENGTH = {"max_position_embeddings": 32768}


def _read(given: Keys) -> Fields:
    """The first `max_window_layers` have no window, if `layer_types` does not say which have."""
    if not given["use_sliding_window"]:
        return {}
    full, layers = given["max_window_layers"], given["num_hidden_layers"]
    return windows_of(given, "".join("G" if i < full else "L" for i in range(layers)))


def _write(config: ModelConfig) -> Keys:
    return write_windows(config) | {"use_sliding_window": config.sliding_window is not None}


WINDOWS = Part(
    _read,
    _write,
    {
        "sliding_window": None,
        "use_sliding_window": False,
        "max_window_layers": 28,
        "layer_types": None,
    },
)
QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    naming=Naming(names.LLAMA),
    always={"biases": ("qkv",)},
    defaults=LENGTH,
    parts=(rope(), activation(), WINDOWS),
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    naming=Naming(names.LLAMA),
    always={"qk_norm": True},
    defaults={**LENGTH, "head_dim": 128},
    parts=(rope(), activation(), biases(qkv="attention_bias", out="attention_bias"), WINDOWS),
)
QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    naming=Naming(names.LLAMA | SPARSE),
    always={"qk_norm": True},
    defaults=LENGTH,
    parts=(
        rope(),
        activation(),
        biases(qkv="attention_bias", out="attention_bias"),
        windows(by_layer=False, switch=True),
        QWEN_EXPERTS,
    ),
    aliases={"num_local_experts": "num_experts"},  # what transformers 5 calls it
)
