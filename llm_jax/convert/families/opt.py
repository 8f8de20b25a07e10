"""OPT (Zhang et al. 2022): learned positions after two rows that no text uses, ReLU."""

from __future__ import annotations

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import PLAIN, activation, biases

LAYER = "model.decoder.layers.{}."
NAMES = {
    "embed/tokens": "model.decoder.embed_tokens.weight",
    "embed/positions": "model.decoder.embed_positions.weight",
    "blocks/attn_norm/scale": LAYER + "self_attn_layer_norm.weight",
    "blocks/attn_norm/bias": LAYER + "self_attn_layer_norm.bias",
    **{f"blocks/attn/{part}": f"{LAYER}self_attn.{part}_proj.weight" for part in "qkv"},
    **{f"blocks/attn/{part}_bias": f"{LAYER}self_attn.{part}_proj.bias" for part in "qkv"},
    "blocks/attn/o": LAYER + "self_attn.out_proj.weight",
    "blocks/attn/o_bias": LAYER + "self_attn.out_proj.bias",
    "blocks/mlp_norm/scale": LAYER + "final_layer_norm.weight",
    "blocks/mlp_norm/bias": LAYER + "final_layer_norm.bias",
    "blocks/mlp/up": LAYER + "fc1.weight",
    "blocks/mlp/up_bias": LAYER + "fc1.bias",
    "blocks/mlp/down": LAYER + "fc2.weight",
    "blocks/mlp/down_bias": LAYER + "fc2.bias",
    "final_norm/scale": "model.decoder.final_layer_norm.weight",
    "final_norm/bias": "model.decoder.final_layer_norm.bias",
    "unembed": "lm_head.weight",
}


def _read(given: Keys) -> Fields:
    size = given["word_embed_proj_dim"]
    if size not in (None, given["hidden_size"]):
        raise UserError(
            f"config.json has word_embed_proj_dim = {size!r}: only hidden_size = "
            f"{given['hidden_size']!r} is supported."
        )
    return {}


def _write(config: ModelConfig) -> Keys:
    return {"word_embed_proj_dim": config.d_model}


OPT = Family(
    model_type="opt",
    architecture="OPTForCausalLM",
    naming=Naming(NAMES, optional_prefix="model."),
    fields={
        "vocab_size": "vocab_size",
        "num_layers": "num_hidden_layers",
        "d_model": "hidden_size",
        "num_heads": "num_attention_heads",
        "d_ff": "ffn_dim",
        "max_seq_len": "max_position_embeddings",
        "tie_embeddings": "tie_word_embeddings",
    },
    always={
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "positions": "learned",
        "position_offset": 2,
    },
    defaults={
        "max_position_embeddings": 2048,
        "ffn_dim": 3072,
        "tie_word_embeddings": True,
    },
    fixed={
        "do_layer_norm_before": True,
        "layer_norm_elementwise_affine": True,
        "_remove_final_layer_norm": False,
    },
    parts=(
        activation(PLAIN, "activation_function", "relu"),
        biases(True, qkv="enable_bias", out="enable_bias", mlp="enable_bias"),
        Part(_read, _write, {"word_embed_proj_dim": None}),
    ),
    heads_divide_width=True,
)
