"""GLM-4.5 (GLM-4.5 Team 2025): GLM's attention with the experts of DeepSeek-V3."""

from __future__ import annotations

from llm_jax.convert.families import names
from llm_jax.convert.families.deepseek import SCORE_BIAS, sigmoid_experts
from llm_jax.convert.families.experts import SHARED_EXPERTS, SPARSE
from llm_jax.convert.families.family import Family, Naming, Part
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

QK_NORM = Part(
    lambda given: {"qk_norm": given["use_qk_norm"]},
    lambda config: {"use_qk_norm": config.qk_norm},
    {"use_qk_norm": False},
)
GLM4_MOE = Family(
    model_type="glm4_moe",
    architecture="Glm4MoeForCausalLM",
    naming=Naming(names.LLAMA | SPARSE | SHARED_EXPERTS | SCORE_BIAS),
    defaults={
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "moe_intermediate_size": 1408,
        "num_key_value_heads": 8,
    },
    parts=(
        rope(fraction=0.5),
        activation(),
        biases(qkv="attention_bias"),
        QK_NORM,
        sigmoid_experts(dense_layers=1, scale=1.0, experts=128, groups=1),
    ),
    aliases={"num_local_experts": "n_routed_experts"},
)
