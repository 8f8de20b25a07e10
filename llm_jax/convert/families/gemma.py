"""Gemma 1 to 3 (Gemma Team 2024, 2025), the third without its eyes."""

from __future__ import annotations

from llm_jax.config import ModelConfig
from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import GATED, activation, biases, same, windows
from llm_jax.convert.families.rope import layered_rope, rope

ALWAYS = {"norm_plus_one": True, "scale_embeddings": True}
DEFAULTS = {"head_dim": 256, "tie_word_embeddings": True, "max_position_embeddings": 8192}
BIASES = biases(qkv="attention_bias", out="attention_bias")
_ACTIVATION = activation({"geglu": GATED["geglu"]}, "hidden_act", GATED["geglu"])


def _read_activation(given: Keys) -> Fields:
    """transformers takes the tanh GELU for "gelu", as the first configs of Gemma meant it."""
    act = given["hidden_activation"] or given["hidden_act"]
    return _ACTIVATION.read({"hidden_act": GATED["geglu"] if act == "gelu" else act})


def _gemma_activation(key: str) -> Part:
    def write(config: ModelConfig) -> Keys:
        written = _ACTIVATION.write(config)
        return {key: written["hidden_act"]} if written else {}

    return Part(_read_activation, write, {"hidden_activation": None, "hidden_act": GATED["geglu"]})


def _read_scale(given: Keys) -> Fields:
    scalar, head_dim = given["query_pre_attn_scalar"], given["head_dim"]
    return {"attn_scale": None if scalar == head_dim else scalar**-0.5}


def _write_scale(config: ModelConfig) -> Keys:
    return {"query_pre_attn_scalar": round((config.attn_scale or config.head_dim**-0.5) ** -2)}


SCALE = Part(_read_scale, _write_scale, {"query_pre_attn_scalar": 256})

GEMMA = Family(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    naming=Naming(names.LLAMA),
    always=ALWAYS,
    defaults=DEFAULTS,
    parts=(rope(), _gemma_activation("hidden_act"), BIASES),
)
GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    naming=Naming(names.LLAMA | names.FOUR_NORMS),
    always={**ALWAYS, "post_norm": True},
    defaults={**DEFAULTS, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    parts=(
        rope(),
        _gemma_activation("hidden_activation"),
        BIASES,
        SCALE,
        same(attn_softcap="attn_logit_softcapping", logit_softcap="final_logit_softcapping"),
        windows("LG", 4096),
    ),
    heads_divide_width=True,
)
GEMMA3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    naming=Naming(names.LLAMA | names.FOUR_NORMS),
    always={**ALWAYS, "post_norm": True, "qk_norm": True},
    defaults={**DEFAULTS, "max_position_embeddings": 131072},
    fixed={"use_bidirectional_attention": False},
    parts=(
        layered_rope(1e6, 1e4),
        _gemma_activation("hidden_activation"),
        BIASES,
        SCALE,
        same(attn_softcap="attn_logit_softcapping", logit_softcap="final_logit_softcapping"),
        windows("LLLLLG", 4096, pattern_key="sliding_window_pattern"),
    ),
    heads_divide_width=True,
)
