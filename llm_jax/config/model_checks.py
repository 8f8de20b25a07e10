"""Checks of the architecture: each refusal names the field, its value and the way out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_jax.config.errors import positive, require
from llm_jax.config.extensions import check_name
from llm_jax.config.rope import LongRope, YarnRope

if TYPE_CHECKING:
    from llm_jax.config.model import ModelConfig

MOST_LAYERS = 10_000
"""Limit on `num_layers`: ten times the deepest trained model (DeepNet, Wang et al. 2022). It bounds
`moe_layers` and `windows`, tuples with one entry per layer."""
BIASES = ("qkv", "out", "mlp", "unembed")
OTHERS = (
    "encoder",
    "modern_encoder",
    "encoder_decoder",
    "recurrent",
    "recurrent_encoder_decoder",
    "transformer_encoder_decoder",
    "word2vec",
)
"""Kinds of models with a config of their own (`architecture.py`)."""


def check_model(model: ModelConfig) -> None:
    """Raises `ConfigError` for an architecture that cannot be built."""
    check_name("model.kind", model.kind)
    require(
        model.kind not in OTHERS,
        f"model.kind is {model.kind!r}, which has a config of its own: begin with a recipe of that "
        "kind.",
    )
    positive("model", model, "num_layers", most=MOST_LAYERS)
    positive("model", model, "vocab_size", "d_model", "num_heads", "num_kv_heads")
    positive("model", model, "head_dim", "d_ff", "max_seq_len", "norm_eps", "rope_theta")
    positive("model", model, "embed_multiplier", "residual_multiplier", "logit_multiplier")
    require(
        model.num_heads % model.num_kv_heads == 0,
        f"model.num_heads is {model.num_heads}, which model.num_kv_heads = {model.num_kv_heads} "
        "does not divide: set num_kv_heads to a divisor of num_heads.",
    )
    require(
        model.biases == tuple(name for name in BIASES if name in model.biases),
        f"model.biases is {list(model.biases)}: write each once, in the order {', '.join(BIASES)}.",
    )
    require(
        set(model.window_pattern) <= {"L", "G"} and model.window_pattern != "",
        f"model.window_pattern is {model.window_pattern!r}: use letters L (local) and G "
        "(global), such as 'LLLLLG'.",
    )
    if model.sliding_window is not None:
        positive("model", model, "sliding_window")
    for name in ("attn_softcap", "logit_softcap", "attn_scale", "qkv_clip", "rope_local_theta"):
        value = getattr(model, name)
        valid = value is None or 0 < value < math.inf
        require(valid, f"model.{name} is {value}: give a finite number above 0.")
    _check_positions(model)
    _check_norms(model)
    _check_induction(model)
    _check_experts(model)
    _check_latent(model)


def _check_positions(model: ModelConfig) -> None:
    require(
        set(model.rope_pattern) <= {"R", "N"} and model.rope_pattern != "",
        f"model.rope_pattern is {model.rope_pattern!r}: use letters R (rotary) and N (none), such "
        "as 'RRRN'.",
    )
    require(
        0 < model.rotary_fraction <= 1,
        f"model.rotary_fraction is {model.rotary_fraction}: it must be above 0, and at most 1.",
    )
    require(
        0 <= model.position_offset <= 2**31,
        f"model.position_offset is {model.position_offset}: it must not be negative.",
    )
    needed: dict[str, tuple[object, str]] = {
        "position_offset": (0, "learned"),
        "rope_scaling": (None, "rope"),
        "rope_local_theta": (None, "rope"),
        "rotary_fraction": (1.0, "rope"),
        "rope_pattern": ("R", "rope"),
    }
    for name, (off, positions) in needed.items():
        value = getattr(model, name)
        require(
            value == off or model.positions == positions,
            f"model.{name} is {value!r}, which requires model.positions = {positions!r}: set that, "
            f"or {name} to {off!r}.",
        )
    if model.positions != "rope":
        return
    if model.rotary_fraction == 1:
        require(
            model.head_dim % 2 == 0,
            f"model.head_dim is {model.head_dim}: rotary positions need an even number.",
        )
    require(
        model.rotary_dim % 2 == 0 and model.rotary_dim > 0,
        f"model.rotary_fraction is {model.rotary_fraction}, which rotates {model.rotary_dim} of "
        f"model.head_dim = {model.head_dim} numbers: rotary positions need an even number.",
    )
    scaling = model.rope_scaling
    if isinstance(scaling, LongRope):
        require(
            not model.qk_norm_after_rope,
            "model.rope_scaling.kind is 'longrope', which requires model.qk_norm_after_rope = "
            "False: set that, or take another scaling.",
        )
        for name in ("short_factors", "long_factors"):
            count, pairs = len(getattr(scaling, name)), model.rotary_dim // 2
            require(
                count in (0, pairs),
                f"model.rope_scaling.{name} has {count} numbers: give one for each of {pairs} "
                "rotated pairs.",
            )
    if isinstance(scaling, YarnRope) and scaling.query_beta:
        require(
            model.rotary_fraction == 1 and set(model.rope_pattern) == {"R"},
            f"model.rope_scaling.query_beta is {scaling.query_beta}, which requires "
            "model.rotary_fraction = 1.0 and model.rope_pattern = 'R': set them, or query_beta to "
            "0.",
        )
        require(
            not model.qk_norm_after_rope,
            f"model.rope_scaling.query_beta is {scaling.query_beta}, which a norm of queries after "
            "their rotation would undo: set model.qk_norm_after_rope to False, or query_beta to 0.",
        )


def _check_norms(model: ModelConfig) -> None:
    require(
        model.pre_norm or model.post_norm,
        "model.pre_norm is False, which requires model.post_norm = True: set one of them.",
    )
    require(
        model.parallel_block == "none" or (model.pre_norm and not model.post_norm),
        f"model.parallel_block is {model.parallel_block!r}, which requires model.pre_norm = True "
        "and model.post_norm = False: set them, or parallel_block to 'none'.",
    )
    require(
        not model.norm_plus_one or model.norm_weights != "none",
        "model.norm_plus_one is True, but norms have no scale with model.norm_weights = 'none': "
        "set one of them.",
    )
    for name, off in (("qk_norm_over", "head"), ("qk_norm_after_rope", False)):
        value = getattr(model, name)
        require(
            value == off or model.qk_norm,
            f"model.{name} is {value!r}, which requires model.qk_norm = True: set that, or {name} "
            f"to {off!r}.",
        )


def _check_induction(model: ModelConfig) -> None:
    if model.attention_init == "normal":
        return
    require(
        model.qkv_bias,
        "model.attention_init is 'induction', which requires 'qkv' in model.biases: add "
        "it, or set attention_init to 'normal'.",
    )
    wanted = {
        "positions": "rope",
        "qk_norm": True,
        "moe": None,
        "pre_norm": True,
        "norm_weights": "all",
        "qk_norm_over": "head",
        "rotary_fraction": 1.0,
        "rope_pattern": "R",
        "rope_local_theta": None,
        "qkv_clip": None,
    }
    for name, value in wanted.items():
        require(
            getattr(model, name) == value,
            f"model.attention_init is 'induction', which requires model.{name} = "
            f"{value!r}: set that, or set attention_init to 'normal'.",
        )
    require(
        model.num_layers > 1,
        "model.attention_init is 'induction', which requires two layers, but "
        "model.num_layers is 1: add layers, or set attention_init to 'normal'.",
    )


def _check_experts(model: ModelConfig) -> None:
    if model.moe is None:
        return
    require(
        any(model.moe_layers),
        f"model.moe.dense_layers is {model.moe.dense_layers} and model.moe.every is "
        f"{model.moe.every}, so none of the {model.num_layers} layers has experts: lower "
        "one of them.",
    )
    require(
        model.activation != "xielu",
        "model.activation is 'xielu', which experts do not have: choose another one.",
    )


def _check_latent(model: ModelConfig) -> None:
    if model.latent is None:
        return
    require(
        model.latent.rope_dim < model.head_dim,
        f"model.latent.rope_dim is {model.latent.rope_dim}: it must be less than model.head_dim = "
        f"{model.head_dim}, of which it is the rotated part.",
    )
    wanted = {
        "num_kv_heads": model.num_heads,
        "positions": "rope",
        "rotary_fraction": 1.0,
        "qk_norm": False,
        "qkv_clip": None,
        "attention_init": "normal",
    }
    for name, value in wanted.items():
        require(
            getattr(model, name) == value,
            f"model.latent requires model.{name} = {value!r}, not {getattr(model, name)!r}.",
        )
    require(
        not (model.qkv_bias or model.out_bias),
        f"model.latent has no biases of attention, but model.biases is {list(model.biases)}: leave "
        "out 'qkv' and 'out'.",
    )
    scaling = model.rope_scaling
    late = isinstance(scaling, LongRope) or (isinstance(scaling, YarnRope) and scaling.query_beta)
    require(
        not late,
        "model.latent has neither LongRoPE nor model.rope_scaling.query_beta: choose another "
        "model.rope_scaling.",
    )
