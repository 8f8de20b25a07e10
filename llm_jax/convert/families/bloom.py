"""BLOOM (Le Scao et al. 2022): ALiBi, a norm after the embedding. On file, query, key and value are
one matrix, head by head."""

from __future__ import annotations

from llm_jax.convert.families.family import Family, Naming, Part

LAYER = "transformer.h.{}."
NAMES = {
    "embed/tokens": "transformer.word_embeddings.weight",
    "embed_norm/scale": "transformer.word_embeddings_layernorm.weight",
    "embed_norm/bias": "transformer.word_embeddings_layernorm.bias",
    "blocks/attn_norm/scale": LAYER + "input_layernorm.weight",
    "blocks/attn_norm/bias": LAYER + "input_layernorm.bias",
    **{f"blocks/attn/{part}": LAYER + "self_attention.query_key_value.weight" for part in "qkv"},
    **{f"blocks/attn/{part}_bias": LAYER + "self_attention.query_key_value.bias" for part in "qkv"},
    "blocks/attn/o": LAYER + "self_attention.dense.weight",
    "blocks/attn/o_bias": LAYER + "self_attention.dense.bias",
    "blocks/mlp_norm/scale": LAYER + "post_attention_layernorm.weight",
    "blocks/mlp_norm/bias": LAYER + "post_attention_layernorm.bias",
    "blocks/mlp/up": LAYER + "mlp.dense_h_to_4h.weight",
    "blocks/mlp/up_bias": LAYER + "mlp.dense_h_to_4h.bias",
    "blocks/mlp/down": LAYER + "mlp.dense_4h_to_h.weight",
    "blocks/mlp/down_bias": LAYER + "mlp.dense_4h_to_h.bias",
    "final_norm/scale": "transformer.ln_f.weight",
    "final_norm/bias": "transformer.ln_f.bias",
    "unembed": "lm_head.weight",
}

BLOOM = Family(
    model_type="bloom",
    architecture="BloomForCausalLM",
    naming=Naming(NAMES, grouped=True, optional_prefix="transformer."),
    fields={
        "vocab_size": "vocab_size",
        "num_layers": "n_layer",
        "d_model": "hidden_size",
        "num_heads": "n_head",
        "max_seq_len": "seq_length",
        "norm_eps": "layer_norm_epsilon",
        "tie_embeddings": "tie_word_embeddings",
    },
    always={
        "norm": "layernorm",
        "positions": "alibi",
        "embed_norm": True,
        "activation": "gelu",
        "biases": ("qkv", "out", "mlp"),
    },
    defaults={"seq_length": 2048, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
    fixed={"apply_residual_connection_post_layernorm": False, "slow_but_exact": False},
    parts=(Part(lambda given: {"d_ff": 4 * given["hidden_size"]}, lambda config: {}),),
    aliases={
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "n_embed": "hidden_size",
    },
)
