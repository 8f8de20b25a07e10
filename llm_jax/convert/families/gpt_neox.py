"""GPT-NeoX and Pythia (Black et al. 2022, Biderman et al. 2023): parallel blocks with a norm for
each half. On file, query, key and value are one matrix, head by head."""

from __future__ import annotations

from llm_jax.config import ModelConfig
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import PLAIN, activation
from llm_jax.convert.families.rope import rope

ATTENTION, MLP = "gpt_neox.layers.{}.attention.", "gpt_neox.layers.{}.mlp."
NAMES = {
    "embed/tokens": "gpt_neox.embed_in.weight",
    "blocks/attn_norm/scale": "gpt_neox.layers.{}.input_layernorm.weight",
    "blocks/attn_norm/bias": "gpt_neox.layers.{}.input_layernorm.bias",
    **{f"blocks/attn/{part}": ATTENTION + "query_key_value.weight" for part in "qkv"},
    **{f"blocks/attn/{part}_bias": ATTENTION + "query_key_value.bias" for part in "qkv"},
    "blocks/attn/o": ATTENTION + "dense.weight",
    "blocks/attn/o_bias": ATTENTION + "dense.bias",
    "blocks/mlp_norm/scale": "gpt_neox.layers.{}.post_attention_layernorm.weight",
    "blocks/mlp_norm/bias": "gpt_neox.layers.{}.post_attention_layernorm.bias",
    "blocks/mlp/up": MLP + "dense_h_to_4h.weight",
    "blocks/mlp/up_bias": MLP + "dense_h_to_4h.bias",
    "blocks/mlp/down": MLP + "dense_4h_to_h.weight",
    "blocks/mlp/down_bias": MLP + "dense_4h_to_h.bias",
    "final_norm/scale": "gpt_neox.final_layer_norm.weight",
    "final_norm/bias": "gpt_neox.final_layer_norm.bias",
    "unembed": "embed_out.weight",
}
FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}


def _read(given: Keys) -> Fields:
    return {
        "parallel_block": "two_norms" if given["use_parallel_residual"] else "none",
        "biases": ("qkv", "out", "mlp") if given["attention_bias"] else ("mlp",),
    }


def _write(config: ModelConfig) -> Keys:
    return {
        "use_parallel_residual": config.parallel_block == "two_norms",
        "attention_bias": config.qkv_bias,
    }


GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    naming=Naming(NAMES, grouped=True, older={"lm_head.weight": "embed_out.weight"}),
    fields=FIELDS,
    always={"norm": "layernorm"},
    defaults={"max_position_embeddings": 2048, "layer_norm_eps": 1e-5},
    parts=(
        rope(fraction=0.25, theta_key="rotary_emb_base", fraction_key="rotary_pct"),
        activation(PLAIN, default="gelu"),
        Part(_read, _write, {"use_parallel_residual": True, "attention_bias": True}),
    ),
    heads_divide_width=True,
)
