"""Keys of transformers' `config.json` that mean the same in every family."""

from __future__ import annotations

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
    "residual_dropout", "embedding_dropout", "hidden_dropout", "emb_pdrop", "eod_token_id",
    "is_decoder", "dropout", "layerdrop", "init_device", "learned_pos_emb", "norm_type",
    "_sliding_window_pattern", "classifier_dropout", "use_flash_attention", "init_std",
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
