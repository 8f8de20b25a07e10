"""MPT (MosaicML 2023): ALiBi, LayerNorm without bias, clipped queries, keys and values."""

from __future__ import annotations

from typing import Any

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.hf_keys import HARMLESS

LAYER = "transformer.blocks.{}."
NAMES = {
    "embed/tokens": "transformer.wte.weight",
    "blocks/attn_norm/scale": LAYER + "norm_1.weight",
    **{f"blocks/attn/{part}": LAYER + "attn.Wqkv.weight" for part in "qkv"},
    "blocks/attn/o": LAYER + "attn.out_proj.weight",
    "blocks/mlp_norm/scale": LAYER + "norm_2.weight",
    "blocks/mlp/up": LAYER + "ffn.up_proj.weight",
    "blocks/mlp/down": LAYER + "ffn.down_proj.weight",
    "final_norm/scale": "transformer.norm_f.weight",
    "unembed": "lm_head.weight",
}
ATTENTION: Keys = {
    "attn_type": "multihead_attention",
    "prefix_lm": False,
    "qk_ln": False,
    "attn_uses_sequence_id": False,
    "alibi": True,
    "alibi_bias_max": 8,
}
"""Keys of `attn_config` of which only this value is supported."""
IGNORED = ("attn_impl", "problem_type")


def _number(given: dict[str, Any], key: str) -> float | None:
    value = given.pop(key, None)
    if value is not None and type(value) not in (int, float):
        raise UserError(f"config.json has attn_config.{key} = {value!r}: it must be a number.")
    return value


def _read(given: Keys) -> Fields:
    inside = dict(given["attn_config"] or {})
    clip, scale = _number(inside, "clip_qkv"), _number(inside, "softmax_scale")
    for key, value in inside.items():
        ignored = key in IGNORED or key in HARMLESS or (key not in ATTENTION and not value)
        if not ignored and value != ATTENTION.get(key):
            raise UserError(f"config.json has attn_config.{key} = {value!r}: not supported.")
    return {"d_ff": 4 * given["d_model"], "qkv_clip": clip, "attn_scale": scale}


def _write(config: ModelConfig) -> Keys:
    inside = {"clip_qkv": config.qkv_clip, "softmax_scale": config.attn_scale}
    return {"attn_config": ATTENTION | inside}


MPT = Family(
    model_type="mpt",
    architecture="MptForCausalLM",
    naming=Naming(NAMES),
    fields={
        "vocab_size": "vocab_size",
        "num_layers": "n_layers",
        "d_model": "d_model",
        "num_heads": "n_heads",
        "max_seq_len": "max_seq_len",
        "norm_eps": "layer_norm_epsilon",
        "tie_embeddings": "tie_word_embeddings",
    },
    always={
        "norm": "layernorm",
        "norm_weights": "scale",
        "positions": "alibi",
        "activation": "gelu_exact",
    },
    defaults={"max_seq_len": 2048, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
    fixed={
        "no_bias": True,
        "logit_scale": None,
        "embedding_fraction": 1.0,
        "expansion_ratio": 4,
    },
    parts=(Part(_read, _write, {"attn_config": None}),),
    aliases={
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "hidden_size": "d_model",
    },
)
