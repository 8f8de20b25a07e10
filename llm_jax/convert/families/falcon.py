"""Falcon 7B, 40B and 180B (Almazrouei et al. 2023): parallel blocks, few key/value heads. On file,
each key/value head stands behind the queries that read it."""

from __future__ import annotations

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import PLAIN, activation, biases, mlp_width
from llm_jax.convert.families.rope import rope

ATTENTION, MLP = "transformer.h.{}.self_attention.", "transformer.h.{}.mlp."
NAMES = {
    "embed/tokens": "transformer.word_embeddings.weight",
    "blocks/attn_norm/scale": "transformer.h.{}.input_layernorm.weight",
    "blocks/attn_norm/bias": "transformer.h.{}.input_layernorm.bias",
    **{f"blocks/attn/{part}": ATTENTION + "query_key_value.weight" for part in "qkv"},
    **{f"blocks/attn/{part}_bias": ATTENTION + "query_key_value.bias" for part in "qkv"},
    "blocks/attn/o": ATTENTION + "dense.weight",
    "blocks/attn/o_bias": ATTENTION + "dense.bias",
    "blocks/mlp_norm/scale": "transformer.h.{}.post_attention_layernorm.weight",
    "blocks/mlp_norm/bias": "transformer.h.{}.post_attention_layernorm.bias",
    "blocks/mlp/up": MLP + "dense_h_to_4h.weight",
    "blocks/mlp/up_bias": MLP + "dense_h_to_4h.bias",
    "blocks/mlp/down": MLP + "dense_4h_to_h.weight",
    "blocks/mlp/down_bias": MLP + "dense_4h_to_h.bias",
    "final_norm/scale": "transformer.ln_f.weight",
    "final_norm/bias": "transformer.ln_f.bias",
    "unembed": "lm_head.weight",
}
TWO_NORMS = {
    "blocks/attn_norm/scale": "transformer.h.{}.ln_attn.weight",
    "blocks/attn_norm/bias": "transformer.h.{}.ln_attn.bias",
    "blocks/mlp_norm/scale": "transformer.h.{}.ln_mlp.weight",
    "blocks/mlp_norm/bias": "transformer.h.{}.ln_mlp.bias",
}


def _read(given: Keys) -> Fields:
    """`new_decoder_architecture` is 40B's: any number of key/value heads, one or two norms."""
    heads, parallel = given["num_attention_heads"], given["parallel_attn"]
    if given["new_decoder_architecture"]:
        if not parallel:
            raise UserError(
                "config.json has parallel_attn false and new_decoder_architecture true: not "
                "supported."
            )
        one = given["num_ln_in_parallel_attn"] == 1
        return {
            "num_kv_heads": given["num_kv_heads"] or heads,
            "parallel_block": "one_norm" if one else "two_norms",
        }
    return {
        "num_kv_heads": 1 if given["multi_query"] else heads,
        "parallel_block": "one_norm" if parallel else "none",
    }


def _write(config: ModelConfig) -> Keys:
    few = config.num_kv_heads not in (1, config.num_heads)
    new = config.parallel_block == "two_norms" or (few and config.parallel_block != "none")
    return {
        "new_decoder_architecture": new,
        "num_kv_heads": config.num_kv_heads,
        "num_ln_in_parallel_attn": 1 + (config.parallel_block == "two_norms") if new else None,
        "multi_query": config.num_kv_heads == 1,
        "parallel_attn": config.parallel_block != "none",
    }


FALCON = Family(
    model_type="falcon",
    architecture="FalconForCausalLM",
    naming=Naming(NAMES, grouped=True, by_block={"two_norms": TWO_NORMS}),
    fields={
        "vocab_size": "vocab_size",
        "num_layers": "num_hidden_layers",
        "d_model": "hidden_size",
        "num_heads": "num_attention_heads",
        "max_seq_len": "max_position_embeddings",
        "norm_eps": "layer_norm_epsilon",
        "tie_embeddings": "tie_word_embeddings",
    },
    always={"norm": "layernorm"},
    defaults={
        "max_position_embeddings": 2048,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    fixed={"alibi": False},
    parts=(
        rope(),
        activation(PLAIN, "activation", "gelu"),
        biases(qkv="bias", out="bias", mlp="bias"),
        Part(
            _read,
            _write,
            {
                "new_decoder_architecture": False,
                "num_kv_heads": None,
                "num_ln_in_parallel_attn": None,
                "multi_query": True,
                "parallel_attn": True,
            },
        ),
        mlp_width("ffn_hidden_size", "hidden_size"),
    ),
    heads_divide_width=True,
)
