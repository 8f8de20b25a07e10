"""The families of transformers that llama.cpp computes, each with its settings there.

Read from llama.cpp's own graphs, and confirmed by loading a file of each (`test_llama_cpp.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llm_jax.config import LinearRope, Llama3Rope, LongRope, ModelConfig, MoeConfig, YarnRope

Metadata = dict[str, Any]
"""Key of the file → its value: a whole number is stored as uint32, a number as float32."""
Lacks = Callable[[ModelConfig], str | None]
"""The end of a sentence about an option of a model that llama.cpp does not compute; None if none.
"""
SOFTMAX, SIGMOID = 1, 2
"""`expert_gating_func`."""


def wants(config: Any, where: str = "model", **fields: Any) -> str | None:
    """A sentence's end about the first field that has another value."""
    for name, wanted in fields.items():
        if (found := getattr(config, name)) != wanted:
            return f"{where}.{name} is {found!r}, it has only {wanted!r}"
    return None


def scaling(config: ModelConfig, llama3: bool = False) -> str | None:
    """What is lacking of the scaling of rotary positions."""
    found = config.rope_scaling
    if isinstance(found, YarnRope):
        plain = YarnRope(factor=found.factor)
        usual = found.truncate and not found.query_beta
        if not usual or found.temperature != plain.temperature:
            return "model.rope_scaling has another attention_factor, truncate or query_beta"
        return None
    known = (LinearRope, Llama3Rope) if llama3 else (LinearRope,)
    if found is None or isinstance(found, known):
        return None
    if isinstance(found, LongRope):
        return "model.rope_scaling is longrope, of which it takes the long factors for any text"
    return f"model.rope_scaling is {found.kind}"


def plain(**fields: Any) -> Lacks:
    """Only these values of fields; a rope scaling that is linear or YaRN."""
    return lambda config: scaling(config) or wants(config, **fields)


def unscaled(**fields: Any) -> Lacks:
    """Only these values of fields, and no rope scaling."""
    return lambda config: wants(config, rope_scaling=None, **fields)


def experts(renormalise: bool | None = None, **fields: Any) -> Lacks:
    """Experts in each layer, or behind the first ones if `dense_layers` is not named."""

    def lacks(config: ModelConfig) -> str | None:
        moe = config.moe
        assert moe is not None
        if moe.every != 1:
            return "not all layers have experts"
        if renormalise is not None and moe.top_k > 1 and moe.renormalise != renormalise:
            return f"model.moe.renormalise is {moe.renormalise}"
        return scaling(config) or wants(moe, "model.moe", **fields)

    return lacks


def pattern_of(letters: str) -> Lacks:
    """Windows in the layers with L of `letters`, repeated, or in none."""

    def lacks(config: ModelConfig) -> str | None:
        local = [window is not None for window in config.windows]
        wanted = [letters[i % len(letters)] == "L" for i in range(config.num_layers)]
        if any(local) and local != wanted:
            return f"the layers with windows are not those of {letters}, repeated"
        return None

    return lacks


def bare_mlp(config: ModelConfig) -> str | None:
    return "model.biases has 'mlp'" if config.mlp_bias else None


def both(*parts: Lacks) -> Lacks:
    """The first that is lacking."""
    return lambda config: next((why for part in parts if (why := part(config))), None)


def windowed(config: ModelConfig) -> str | None:
    return "no layer has a window" if config.sliding_window is None else None


def gemma3(config: ModelConfig) -> str | None:
    if why := windowed(config):
        return why
    if config.rope_local_theta != 10_000.0:
        return f"model.rope_local_theta is {config.rope_local_theta}, it has only 10000.0"
    size = config.d_model / config.num_heads if config.num_layers == 62 else config.head_dim
    if not math.isclose(config.attn_scale or config.head_dim**-0.5, size**-0.5):
        return f"model.attn_scale is not {size**-0.5:g}"
    if not isinstance(config.rope_scaling, LinearRope | None):
        return f"model.rope_scaling is {config.rope_scaling.kind}"
    return wants(config, attn_softcap=None, logit_softcap=None, activation="geglu")


def nope_every_fourth(config: ModelConfig) -> str | None:
    """SmolLM3: the interval of layers without positions is 4."""
    wanted = [(i + 1) % 4 == 0 for i in range(config.num_layers)]
    if [rotation is None for rotation in config.rotations] != wanted:
        return "other layers than every fourth have no positions"
    return wants(config, sliding_window=None)


def cohere2(config: ModelConfig) -> str | None:
    if why := windowed(config):
        return why
    without = [rotation is None for rotation in config.rotations]
    if without != [window is None for window in config.windows]:
        return "layers without a window have positions, or others have none"
    return None


def exaone4(config: ModelConfig) -> str | None:
    if (config.sliding_window is not None) != (config.num_layers == 64):
        return "it has windows in all models of 64 layers, and in those only"
    return None


def olmo3(config: ModelConfig) -> str | None:
    if config.rope_scaling is not None and config.sliding_window is not None:
        return None if config.rope_local_theta == config.rope_theta else "the bases differ"
    return None


def latent(config: ModelConfig) -> str | None:
    moe, ranks = config.moe, config.latent
    assert moe is not None and ranks is not None
    if ranks.q_rank is None and config.num_layers != 27:
        return "model.latent.q_rank is None, which it has in models of 27 layers only"
    if moe.groups > 1 and moe.router == "softmax":
        return "model.moe.groups with softmax: it takes the two best experts of a group, not one"
    found = config.rope_scaling
    if config.activation != "swiglu":
        return wants(config, activation="swiglu")
    if isinstance(found, YarnRope):
        usual = found.truncate and config.attn_scale and math.isclose(found.temperature, 1)
        return None if usual else "model.rope_scaling is yarn, but mscale is not mscale_all_dim"
    return wants(config, rope_scaling=None)


def olmoe(config: ModelConfig) -> str | None:
    """The norm of keys is as wide as the model."""
    return wants(config, num_kv_heads=config.num_heads, activation="swiglu")


def gelu(config: ModelConfig) -> str | None:
    """Either GELU; `Architecture.notes` says what becomes of the exact one."""
    if config.activation in ("gelu", "gelu_exact"):
        return None
    return f"model.activation is {config.activation!r}, it has only 'gelu'"


def falcon(config: ModelConfig) -> str | None:
    if config.parallel_block == "none":
        return "model.parallel_block is 'none', it has only parallel blocks"
    return scaling(config)


def granite(config: ModelConfig) -> Metadata:
    return {
        "logit_scale": 1 / config.logit_multiplier,
        "embedding_scale": float(config.embed_multiplier),
        "residual_scale": float(config.residual_multiplier),
        "attention.scale": float(config.attn_scale or config.head_dim**-0.5),
    }


def cohere(config: ModelConfig) -> Metadata:
    return {"logit_scale": float(config.logit_multiplier)}


def window(config: ModelConfig) -> Metadata:
    return {"attention.sliding_window": config.sliding_window} if config.sliding_window else {}


def local_rope(config: ModelConfig) -> Metadata:
    """Gemma 3: the base of the layers with windows."""
    return window(config) | {"rope.freq_base_swa": float(config.rope_local_theta or 1e4)}


def two_norms(config: ModelConfig) -> Metadata:
    return {"use_parallel_residual": config.parallel_block == "two_norms"}


def clipped(config: ModelConfig) -> Metadata:
    return {} if config.qkv_clip is None else {"attention.clamp_kqv": float(config.qkv_clip)}


def mpt(config: ModelConfig) -> Metadata:
    return {"attention.max_alibi_bias": 8.0} | clipped(config)


def shared(config: ModelConfig) -> Metadata:
    moe = config.moe
    assert moe is not None
    return {"expert_shared_feed_forward_length": moe.shared_d_ff}


def sigmoids(config: ModelConfig) -> Metadata:
    """Experts of DeepSeek and GLM."""
    moe = config.moe
    assert moe is not None
    made: Metadata = {
        "leading_dense_block_count": moe.dense_layers,
        "expert_shared_count": moe.shared_d_ff // moe.d_ff,
        "expert_weights_scale": float(moe.scale),
        "expert_weights_norm": moe.renormalise,
        "expert_gating_func": SIGMOID if moe.router == "sigmoid" else SOFTMAX,
    }
    return made | _groups(moe)


def _groups(moe: MoeConfig) -> Metadata:
    if moe.groups == 1:
        return {}
    return {"expert_group_count": moe.groups, "expert_group_used_count": moe.top_groups}


def deepseek(config: ModelConfig) -> Metadata:
    """One key/value head: a token's latent and its rotated part."""
    found = config.latent
    assert found is not None
    made = sigmoids(config) | {
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": found.kv_rank,
        "attention.key_length": found.kv_rank + found.rope_dim,
        "attention.value_length": found.kv_rank,
        "attention.key_length_mla": config.head_dim,
        "attention.value_length_mla": found.value_dim,
        "rope.dimension_count": found.rope_dim,
    }
    if found.q_rank:
        made["attention.q_lora_rank"] = found.q_rank
    if isinstance(config.rope_scaling, YarnRope) and config.attn_scale:
        grown = math.sqrt(config.attn_scale * math.sqrt(config.head_dim)) - 1
        made["rope.scaling.yarn_log_multiplier"] = grown / math.log(config.rope_scaling.factor)
    return made
