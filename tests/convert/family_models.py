"""One tiny model of transformers for each family, and for each option that a family has."""

from __future__ import annotations

from typing import Any

import sparse_models
from sparse_models import SMALL

BARE = {k: v for k, v in SMALL.items() if k not in ("intermediate_size", "num_key_value_heads")}
FOUR = {**SMALL, "num_hidden_layers": 4}


def roped(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **parameters}}


YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
LONG = {
    "max_position_embeddings": 96, "original_max_position_embeddings": 16,
    **roped("longrope", short_factor=[1.0, 1.1, 1.3], long_factor=[1.0, 2.0, 5.0],
            partial_rotary_factor=0.75),
}  # fmt: skip

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**SMALL, "attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("LlamaConfig", {**SMALL, **roped("linear", factor=4.0)}),
    "llama-dynamic": (
        "LlamaConfig",
        {**SMALL, "max_position_embeddings": 16, **roped("dynamic", factor=6.0)},
    ),
    "llama-llama3": (
        "LlamaConfig",
        {**SMALL, **roped("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=16)},
    ),
    "llama-yarn-factor": ("LlamaConfig", {**SMALL, **roped("yarn", **YARN, attention_factor=1.3)}),
    "llama-yarn-mscale": (
        "LlamaConfig",
        {**SMALL, **roped("yarn", **YARN, mscale=1.5, mscale_all_dim=0.7, truncate=False)},
    ),
    "llama-longrope": (
        "LlamaConfig",
        {**SMALL, **roped("longrope", short_factor=[1.0, 1.1, 1.3, 1.4],
                          long_factor=[1.0, 2.0, 5.0, 6.0], factor=4.0,
                          original_max_position_embeddings=16)},
    ),
    "mistral": ("MistralConfig", {**SMALL, "sliding_window": 6}),
    "ministral": (
        "MinistralConfig",
        {**SMALL, "head_dim": 8, "sliding_window": 6,
         "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "ministral3": (
        "Ministral3Config",
        {**SMALL, "head_dim": 8,
         **roped("yarn", **YARN, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3)},
    ),
    "qwen2": (
        "Qwen2Config",
        {**SMALL, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {**SMALL, "head_dim": 12, **roped("yarn", **YARN)}),
    "gemma": ("GemmaConfig", {**SMALL, "head_dim": 16}),
    "gemma2": (
        "Gemma2Config",
        {**SMALL, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24},
    ),
    "gemma3_text": (
        "Gemma3TextConfig",
        {**FOUR, "num_hidden_layers": 3, "head_dim": 16, "sliding_window": 6,
         "query_pre_attn_scalar": 16,
         "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
         "rope_parameters": {
             "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
             "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    ),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96},
    ),
    "phi3": ("Phi3Config", {**SMALL, "sliding_window": 6}),
    "phi3-longrope": ("Phi3Config", {**SMALL, **LONG}),
    "olmo": ("OlmoConfig", {**SMALL, "clip_qkv": 0.3}),
    "olmo2": ("Olmo2Config", SMALL),
    "olmo3": (
        "Olmo3Config",
        {**FOUR, "sliding_window": 6,
         "rope_parameters": {
             "full_attention": {"rope_type": "yarn", "rope_theta": 5e5, **YARN},
             "sliding_attention": {"rope_type": "default", "rope_theta": 5e5}}},
    ),
    "smollm3": ("SmolLM3Config", FOUR),
    "seed_oss": ("SeedOssConfig", {**SMALL, "head_dim": 8}),
    "arcee": ("ArceeConfig", SMALL),
    "exaone4": ("Exaone4Config", {**FOUR, "sliding_window": 6}),
    "apertus": ("ApertusConfig", SMALL),
    "ernie4_5": ("Ernie4_5Config", {**SMALL, "head_dim": 12, "use_bias": True}),
    "hunyuan_v1_dense": (
        "HunYuanDenseV1Config",
        {**SMALL, "head_dim": 8, **roped("dynamic", factor=1.0, alpha=10.0)},
    ),
    "granite": (
        "GraniteConfig",
        {**SMALL, "embedding_multiplier": 3.0, "logits_scaling": 4.0, "residual_multiplier": 0.4,
         "attention_multiplier": 0.2},
    ),
    "cohere": ("CohereConfig", {**SMALL, "logit_scale": 0.25}),
    "cohere2": ("Cohere2Config", {**FOUR, "sliding_window": 6, "logit_scale": 0.5}),
    "stablelm": (
        "StableLmConfig",
        {**SMALL, "hidden_size": 64, "use_qkv_bias": True, "tie_word_embeddings": True},
    ),
    "stablelm-parallel": (
        "StableLmConfig", {**SMALL, "hidden_size": 64, "use_parallel_residual": True},
    ),
    "glm": ("GlmConfig", {**SMALL, "head_dim": 8}),
    "glm4": ("Glm4Config", {**SMALL, "head_dim": 8}),
    "nemotron": ("NemotronConfig", {**SMALL, "head_dim": 8}),
    "phi": ("PhiConfig", {**SMALL, "hidden_size": 64}),
    "gptj": (
        "GPTJConfig",
        {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96,
         "rotary_dim": 4, "tie_word_embeddings": False},
    ),
    "gpt_neox": ("GPTNeoXConfig", {**SMALL, "hidden_size": 64}),
    "gpt_neox-sequential": (
        "GPTNeoXConfig",
        {**SMALL, "hidden_size": 64, "use_parallel_residual": False, "attention_bias": False},
    ),
    "gpt_neox_japanese": (
        "GPTNeoXJapaneseConfig",
        {**BARE, "hidden_size": 64, "num_hidden_layers": 3, "tie_word_embeddings": True},
    ),
    "starcoder2": ("Starcoder2Config", {**SMALL, "sliding_window": 6}),
    "falcon": ("FalconConfig", BARE),
    "falcon-40b": (
        "FalconConfig", {**BARE, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "falcon-sequential": (
        "FalconConfig", {**BARE, "parallel_attn": False, "multi_query": False, "bias": True},
    ),
    "opt": ("OPTConfig", {**BARE, "ffn_dim": 48}),
    "bloom": ("BloomConfig", {"vocab_size": 128, "hidden_size": 48, "n_layer": 2, "n_head": 6}),
    "mpt": (
        "MptConfig",
        {"vocab_size": 128, "d_model": 48, "n_layers": 2, "n_heads": 6, "max_seq_len": 96,
         "attn_config": {"clip_qkv": 0.3}},
    ),
    "nanochat": ("NanoChatConfig", SMALL),
    **sparse_models.MODELS,
}  # fmt: skip
"""Name, which begins with the `model_type` → class of its config, and its fields."""


def built(kind: str, fields: dict[str, Any]) -> Any:
    """The model that transformers builds of a config of class `kind`; all its weights matter."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, kind)(**fields)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()
