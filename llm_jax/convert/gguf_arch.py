"""What llama.cpp computes: its architectures, and the metadata that they read from a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_jax.config import LinearRope, Llama3Rope, ModelConfig, UserError, YarnRope

Metadata = dict[str, Any]
"""Key of the file → its value: a whole number is stored as uint32, a number as float32."""


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp.

    Attributes:
      name: as `general.architecture` has it.
      interleaved: it rotates pairs (2i, 2i+1), so that rows of q and k are in another order.
      output_bias: it adds a bias after attention.
      lacks: a sentence's end about an option of a model that it does not compute; None if none.
    """

    name: str
    lacks: Callable[[ModelConfig], str | None]
    interleaved: bool = False
    output_bias: bool = False


def _llama(config: ModelConfig) -> str | None:
    return _scaling(config, llama3=True) or _wants(config, activation="swiglu")


def _scaling(config: ModelConfig, llama3: bool = False) -> str | None:
    """What is lacking of the scaling of rotary positions."""
    scaling = config.rope_scaling
    if isinstance(scaling, YarnRope):
        plain = YarnRope(factor=scaling.factor)
        usual = scaling.truncate and not scaling.query_beta
        if not usual or scaling.temperature != plain.temperature:
            return "model.rope_scaling has another attention_factor, truncate or query_beta"
        return None
    known = (LinearRope, Llama3Rope) if llama3 else (LinearRope,)
    if scaling is None or isinstance(scaling, known):
        return None
    return f"model.rope_scaling is {scaling.kind}"


def _qwen(config: ModelConfig) -> str | None:
    if lacking := _scaling(config):
        return lacking
    if config.moe is not None and (config.moe.dense_layers or config.moe.every != 1):
        return "not all layers have experts"
    if config.moe is not None and not config.moe.renormalise and config.moe.top_k > 1:
        return "model.moe.renormalise is False"
    return _wants(config, activation="swiglu")


def _gemma(config: ModelConfig) -> str | None:
    return _wants(config, activation="geglu", tie_embeddings=True, rope_scaling=None, biases=())


def _gemma2(config: ModelConfig) -> str | None:
    if config.attn_softcap is None or config.logit_softcap is None:
        return "model.attn_softcap or model.logit_softcap is None"
    if config.attn_scale not in (None, config.head_dim**-0.5):
        return f"model.attn_scale is {config.attn_scale:g}"
    local = [window is not None for window in config.windows]
    if any(local) and local != [i % 2 == 0 for i in range(config.num_layers)]:
        return "other layers than every second one, from the first, have windows"
    return _gemma(config)


def _gpt2(config: ModelConfig) -> str | None:
    return _wants(config, activation="gelu")


ARCHITECTURES = {
    "llama": Architecture("llama", _llama, interleaved=True, output_bias=True),
    "mistral": Architecture("llama", _llama, interleaved=True),
    "mixtral": Architecture("llama", _llama, interleaved=True),
    "qwen2": Architecture("qwen2", _qwen),
    "qwen3": Architecture("qwen3", _qwen),
    "qwen3_moe": Architecture("qwen3moe", _qwen),
    "gemma": Architecture("gemma", _gemma),
    "gemma2": Architecture("gemma2", _gemma2),
    "gpt2": Architecture("gpt2", _gpt2, output_bias=True),
}
"""`model_type` of transformers → the architecture that computes the same."""


def _wants(config: ModelConfig, **fields: object) -> str | None:
    for name, wanted in fields.items():
        if (found := getattr(config, name)) != wanted:
            return f"model.{name} is {found!r}, it has only {wanted!r}"
    return None


def architecture_of(config: ModelConfig, model_type: str) -> Architecture:
    """The architecture of llama.cpp that computes what the model does.

    Raises:
      UserError: there is none.
    """
    found = ARCHITECTURES.get(model_type)
    if found is None:
        raise UserError(
            f"A {model_type} model cannot be written as GGUF here: {', '.join(ARCHITECTURES)} can. "
            "Export it with --to hf."
        )
    if lacking := found.lacks(config):
        raise UserError(
            f"llama.cpp's {found.name} does not compute this model: {lacking}. Export it with "
            "--to hf."
        )
    return found


def metadata(config: ModelConfig, arch: Architecture) -> Metadata:
    """The keys below `<architecture>.` and their values."""
    made: Metadata = {
        "vocab_size": config.vocab_size,
        "context_length": context_length(config, arch),
        "embedding_length": config.d_model,
        "block_count": config.num_layers,
        "feed_forward_length": _feed_forward(config, arch),
        "attention.head_count": config.num_heads,
    }
    if arch.name == "gpt2":
        return made | {"attention.layer_norm_epsilon": float(config.norm_eps)}
    made |= {
        "attention.head_count_kv": config.num_kv_heads,
        "attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_theta),
    }
    if config.moe is not None:
        made |= {"expert_count": config.moe.experts, "expert_used_count": config.moe.top_k}
        made["expert_feed_forward_length"] = config.moe.d_ff
    if arch.name == "gemma2":
        made |= {
            "attn_logit_softcapping": float(config.attn_softcap or 0),
            "final_logit_softcapping": float(config.logit_softcap or 0),
            "attention.sliding_window": config.sliding_window or config.max_seq_len,
        }
    return made | _rope(config)


def context_length(config: ModelConfig, arch: Architecture) -> int:
    """Longest text that llama.cpp computes as the model does: no longer than windows it ignores."""
    if config.sliding_window is None or arch.name == "gemma2":
        return config.max_seq_len
    return min(config.max_seq_len, config.sliding_window)


def _feed_forward(config: ModelConfig, arch: Architecture) -> int:
    """Width of the MLPs; the llama architecture reads that of its experts here too."""
    return config.moe.d_ff if config.moe and arch.name == "llama" else config.d_ff


def _rope(config: ModelConfig) -> Metadata:
    scaling = config.rope_scaling
    if isinstance(scaling, LinearRope):
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if not isinstance(scaling, YarnRope):
        return {}  # Llama 3's is a tensor
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(scaling.factor),
        "rope.scaling.original_context_length": scaling.original_max_seq_len,
        "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
        "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
    }
