"""The keys of transformers' `config.json`: which field each holds, its default, what is ignored."""

from __future__ import annotations

from typing import Any

# Field of `ModelConfig` → key of config.json, where the value is the same.
RENAMED = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
GPT2_RENAMED = {
    "vocab_size": "vocab_size",
    "num_layers": "n_layer",
    "d_model": "n_embd",
    "num_heads": "n_head",
    "d_ff": "n_inner",
    "max_seq_len": "n_positions",
    "norm_eps": "layer_norm_epsilon",
    "tie_embeddings": "tie_word_embeddings",
}
ACTIVATIONS = {
    "swiglu": "silu",
    "geglu": "gelu_pytorch_tanh",
    "gelu": "gelu_new",
    "gelu_exact": "gelu",
}
GPT2_ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact"}
FROM_ACTIVATIONS = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu_pytorch_tanh": "geglu",
    "gelu_new": "geglu",
}
# Field of `MoeConfig` → key of config.json.
EXPERTS = {
    "mixtral": {
        "experts": "num_local_experts",
        "top_k": "num_experts_per_tok",
        "d_ff": "intermediate_size",
        "balance_loss": "router_aux_loss_coef",
    },
    "qwen3_moe": {
        "experts": "num_experts",
        "top_k": "num_experts_per_tok",
        "d_ff": "moe_intermediate_size",
        "renormalise": "norm_topk_prob",
        "balance_loss": "router_aux_loss_coef",
    },
}
# The defaults of transformers for keys that an old config.json lacks.
COMMON_DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10_000.0,
    "layer_types": None,
    "sliding_window": None,
    "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
}
GEMMA_DEFAULTS = {"head_dim": 256, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "qwen3": {"max_position_embeddings": 32768, "head_dim": 128, "use_sliding_window": False},
    "qwen2": {"max_position_embeddings": 32768, "use_sliding_window": False},
    "mistral": {"max_position_embeddings": 131072, "sliding_window": 4096},
    "ministral": {"max_position_embeddings": 131072, "sliding_window": 4096},
    "mixtral": {
        "max_position_embeddings": 131072,
        "rope_theta": 1e6,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.001,
    },
    "qwen3_moe": {
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "router_aux_loss_coef": 0.001,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
    },
    "gemma": {**GEMMA_DEFAULTS, "max_position_embeddings": 8192},
    "gemma2": {
        **GEMMA_DEFAULTS,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    },
}
GPT2_DEFAULTS: dict[str, Any] = {
    "n_positions": 1024,
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "activation_function": "gelu_new",
}
# Keys that do not change what a model computes in evaluation.
HARMLESS = {
    "_name_or_path", "architectures", "attention_dropout", "attn_pdrop", "bos_token_id",
    "chunk_size_feed_forward", "dtype", "embd_pdrop", "eos_token_id", "gradient_checkpointing",
    "id2label", "initializer_range", "label2id", "max_window_layers", "model_type", "n_ctx",
    "pad_token_id", "pretraining_tp", "reorder_and_upcast_attn", "resid_pdrop",
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "task_specific_params", "torch_dtype", "transformers_version",
    "use_cache", "use_sliding_window", "cache_implementation", "hidden_activation", "hidden_act",
    "output_attentions", "output_router_logits", "router_jitter_noise", "output_hidden_states",
    "return_dict", "problem_type", "rope_theta", "tokenizer_class", "sep_token_id",
    "is_llama_config", "unsloth_version", "unsloth_fixed",
    "neftune_noise_alpha", "transformers.js_config", "_attn_implementation",
    "_attn_implementation_autoset", "_flash_attn_2_enabled",
    # Defaults of generation, which configs of older versions of transformers hold.
    "max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "typical_p",
    "num_beams", "num_beam_groups", "num_return_sequences", "length_penalty",
    "diversity_penalty", "repetition_penalty", "early_stopping",
}  # fmt: skip
# Keys that are supported only with this value.
FIXED = {
    "scale_attn_weights": True,
    "is_encoder_decoder": False,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
}
