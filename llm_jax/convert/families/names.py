"""Names of tensors that several families share, and those of BERT."""

from __future__ import annotations

from llm_jax.convert.families.family import Naming

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


BERT = Naming(
    {
        "embed/tokens": "bert.embeddings.word_embeddings.weight",
        "embed/positions": "bert.embeddings.position_embeddings.weight",
        "embed/types": "bert.embeddings.token_type_embeddings.weight",
        "embed_norm/scale": "bert.embeddings.LayerNorm.weight",
        "embed_norm/bias": "bert.embeddings.LayerNorm.bias",
        "blocks/attn/q": "bert.encoder.layer.{}.attention.self.query.weight",
        "blocks/attn/q_bias": "bert.encoder.layer.{}.attention.self.query.bias",
        "blocks/attn/k": "bert.encoder.layer.{}.attention.self.key.weight",
        "blocks/attn/k_bias": "bert.encoder.layer.{}.attention.self.key.bias",
        "blocks/attn/v": "bert.encoder.layer.{}.attention.self.value.weight",
        "blocks/attn/v_bias": "bert.encoder.layer.{}.attention.self.value.bias",
        "blocks/attn/o": "bert.encoder.layer.{}.attention.output.dense.weight",
        "blocks/attn/o_bias": "bert.encoder.layer.{}.attention.output.dense.bias",
        "blocks/attn_norm/scale": "bert.encoder.layer.{}.attention.output.LayerNorm.weight",
        "blocks/attn_norm/bias": "bert.encoder.layer.{}.attention.output.LayerNorm.bias",
        "blocks/mlp/up": "bert.encoder.layer.{}.intermediate.dense.weight",
        "blocks/mlp/up_bias": "bert.encoder.layer.{}.intermediate.dense.bias",
        "blocks/mlp/down": "bert.encoder.layer.{}.output.dense.weight",
        "blocks/mlp/down_bias": "bert.encoder.layer.{}.output.dense.bias",
        "blocks/mlp_norm/scale": "bert.encoder.layer.{}.output.LayerNorm.weight",
        "blocks/mlp_norm/bias": "bert.encoder.layer.{}.output.LayerNorm.bias",
        "head/dense": "cls.predictions.transform.dense.weight",
        "head/dense_bias": "cls.predictions.transform.dense.bias",
        "head/norm/scale": "cls.predictions.transform.LayerNorm.weight",
        "head/norm/bias": "cls.predictions.transform.LayerNorm.bias",
        "head/bias": "cls.predictions.bias",
    }
)
