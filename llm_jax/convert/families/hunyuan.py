"""Hunyuan without experts (Tencent 2025): queries and keys are normed after their rotation."""

from __future__ import annotations

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

NORMS = {
    "blocks/attn/q_norm/scale": "model.layers.{}.self_attn.query_layernorm.weight",
    "blocks/attn/k_norm/scale": "model.layers.{}.self_attn.key_layernorm.weight",
}
_ROPE = rope()


def _read(given: Keys) -> Fields:
    """A "dynamic" scaling with an `alpha` is a base that is larger, for every length."""
    found = dict(given["rope_parameters"] or given["rope_scaling"] or {})
    alpha = found.pop("alpha", None)
    kind = found.get("rope_type") or found.get("type")
    if not alpha or kind != "dynamic":
        return _ROPE.read(given | {"rope_parameters": found, "rope_scaling": None})
    size = given["head_dim"] or given["hidden_size"] // given["num_attention_heads"]
    theta = found.get("rope_theta") or given["rope_theta"]
    return {"rope_theta": theta * alpha ** (size / (size - 2))}


HUNYUAN = Family(
    model_type="hunyuan_v1_dense",
    architecture="HunYuanDenseV1ForCausalLM",
    naming=Naming(names.LLAMA | NORMS),
    always={"qk_norm": True, "qk_norm_after_rope": True},
    defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-5},
    parts=(
        Part(_read, _ROPE.write, _ROPE.defaults),
        activation(),
        biases(qkv="attention_bias", out="attention_bias"),
    ),
)
