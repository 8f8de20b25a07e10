"""Names of tensors that several families share."""

from __future__ import annotations

LLAMA = {
    "embed/tokens": "model.embed_tokens.weight",
    "blocks/attn_norm/scale": "model.layers.{}.input_layernorm.weight",
    "blocks/attn_norm/bias": "model.layers.{}.input_layernorm.bias",
    "blocks/attn/q": "model.layers.{}.self_attn.q_proj.weight",
    "blocks/attn/q_bias": "model.layers.{}.self_attn.q_proj.bias",
    "blocks/attn/k": "model.layers.{}.self_attn.k_proj.weight",
    "blocks/attn/k_bias": "model.layers.{}.self_attn.k_proj.bias",
    "blocks/attn/v": "model.layers.{}.self_attn.v_proj.weight",
    "blocks/attn/v_bias": "model.layers.{}.self_attn.v_proj.bias",
    "blocks/attn/q_norm/scale": "model.layers.{}.self_attn.q_norm.weight",
    "blocks/attn/k_norm/scale": "model.layers.{}.self_attn.k_norm.weight",
    "blocks/attn/o": "model.layers.{}.self_attn.o_proj.weight",
    "blocks/attn/o_bias": "model.layers.{}.self_attn.o_proj.bias",
    "blocks/mlp_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
    "blocks/mlp_norm/bias": "model.layers.{}.post_attention_layernorm.bias",
    "blocks/mlp/gate": "model.layers.{}.mlp.gate_proj.weight",
    "blocks/mlp/gate_bias": "model.layers.{}.mlp.gate_proj.bias",
    "blocks/mlp/up": "model.layers.{}.mlp.up_proj.weight",
    "blocks/mlp/up_bias": "model.layers.{}.mlp.up_proj.bias",
    "blocks/mlp/down": "model.layers.{}.mlp.down_proj.weight",
    "blocks/mlp/down_bias": "model.layers.{}.mlp.down_proj.bias",
    "final_norm/scale": "model.norm.weight",
    "final_norm/bias": "model.norm.bias",
    "unembed": "lm_head.weight",
}
FOUR_NORMS = {
    "blocks/attn_post_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
    "blocks/mlp_norm/scale": "model.layers.{}.pre_feedforward_layernorm.weight",
    "blocks/mlp_post_norm/scale": "model.layers.{}.post_feedforward_layernorm.weight",
}
"""With `post_norm`, as Gemma 2 names them."""
TWO_NORMS_AFTER = {
    "blocks/attn_post_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
    "blocks/mlp_post_norm/scale": "model.layers.{}.post_feedforward_layernorm.weight",
}
"""Without `pre_norm`, as OLMo 2 names them."""
FUSED_MLP = dict.fromkeys(
    ("blocks/mlp/gate", "blocks/mlp/up"), "model.layers.{}.mlp.gate_up_proj.weight"
)
FUSED_QKV = dict.fromkeys(
    ("blocks/attn/q", "blocks/attn/k", "blocks/attn/v"),
    "model.layers.{}.self_attn.qkv_proj.weight",
)
