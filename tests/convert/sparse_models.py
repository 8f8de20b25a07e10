"""Tiny models of transformers with experts, latent attention or attention sinks."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    **SMALL, "num_hidden_layers": 3, "num_key_value_heads": 4, "kv_lora_rank": 16,
    "q_lora_rank": 24, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6,
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 12,
    "n_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
    "n_group": 4, "topk_group": 2,
}  # fmt: skip

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**SMALL, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
         "shared_expert_intermediate_size": 40, "mlp_only_layers": [0]},
    ),
    "qwen2_moe-windows": (
        "Qwen2MoeConfig",
        {**SMALL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
         "shared_expert_intermediate_size": 8, "norm_topk_prob": True, "qkv_bias": False,
         "use_sliding_window": True, "sliding_window": 6},
    ),
    "olmoe": (
        "OlmoeConfig", {**SMALL, "num_experts": 8, "num_experts_per_tok": 3},
    ),
    "deepseek_v2": (
        "DeepseekV2Config",
        {**DEEPSEEK, "topk_method": "group_limited_greedy",
         "rope_parameters": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.5}},
    ),
    "deepseek_v2-greedy": ("DeepseekV2Config", {**DEEPSEEK, "q_lora_rank": None}),
    "deepseek_v3": (
        "DeepseekV3Config",
        {**DEEPSEEK, "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    ),
    "gpt_oss": (
        "GptOssConfig",
        {**SMALL, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
         "sliding_window": 6, "rope_parameters": {**YARN, "truncate": False}},
    ),
    "glm4_moe": (
        "Glm4MoeConfig",
        {**SMALL, "head_dim": 8, "n_routed_experts": 8, "num_experts_per_tok": 2,
         "moe_intermediate_size": 12, "n_group": 2, "attention_bias": True, "use_qk_norm": True},
    ),
    "granitemoe": (
        "GraniteMoeConfig",
        {**SMALL, "num_local_experts": 4, "embedding_multiplier": 3.0, "logits_scaling": 4.0,
         "residual_multiplier": 0.4, "attention_multiplier": 0.2},
    ),
}  # fmt: skip
"""Name, which begins with the `model_type` → class of its config, and its fields."""
