"""Rotary positions in `config.json`: `rope_parameters` (transformers 5) or `rope_scaling`."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from llm_jax.config import (
    DynamicRope,
    LinearRope,
    Llama3Rope,
    LongRope,
    ModelConfig,
    UserError,
    YarnRope,
)
from llm_jax.convert.families.family import Fields, Keys, Part

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
QUERY_BETA = "llama_4_scaling_beta"
LOCAL, GLOBAL = "sliding_attention", "full_attention"


def rope(
    theta: float = 10_000.0,
    *,
    fraction: float | None = None,
    kinds: Collection[str] = KINDS,
    growing_queries: bool = False,
    theta_key: str = "rope_theta",
    fraction_key: str = "partial_rotary_factor",
    extra: Keys | None = None,
) -> Part:
    """The base of the frequencies, their scaling, and the share of each head that is rotated.

    Args:
      theta: the base if the file names none.
      fraction: the share if the file names none; None: the family always rotates whole heads.
      kinds: the types that the family has, without those that it has by another name.
      growing_queries: the family has Llama 4's factor on queries.
      theta_key, fraction_key: their keys outside of `rope_parameters`.
      extra: `rope_parameters` of a file without any.
    """
    defaults: Keys = {"rope_parameters": None, "rope_scaling": None, theta_key: theta}
    defaults["original_max_position_embeddings"] = None
    if fraction is not None:
        defaults[fraction_key] = fraction

    def read(given: Keys) -> Fields:
        found = dict(given["rope_parameters"] or given["rope_scaling"] or extra or {})
        fields = {"rope_theta": float(found.pop("rope_theta", None) or given[theta_key])}
        share = found.pop("partial_rotary_factor", None)
        if fraction is not None:
            fields["rotary_fraction"] = float(given[fraction_key] if share is None else share)
        elif share not in (None, 1.0):
            raise UserError(
                f"config.json has rope parameter partial_rotary_factor = {share!r}: not supported."
            )
        if found.get(QUERY_BETA) and not growing_queries:
            raise UserError(
                f"config.json has rope parameter {QUERY_BETA} = {found[QUERY_BETA]!r}: not "
                "supported for this model_type."
            )
        return fields | _scaling(found, given, kinds)

    def write(config: ModelConfig) -> Keys:
        made: Keys = {"rope_parameters": _parameters(config, kinds)}
        if growing_queries:
            beta = getattr(config.rope_scaling, "query_beta", 0.0)
            made["rope_parameters"][QUERY_BETA] = beta
        if fraction is not None:
            made["rope_parameters"]["partial_rotary_factor"] = config.rotary_fraction
        return made | _lengths(config, kinds)

    return Part(read, write, defaults)


def layered_rope(theta: float, local_theta: float, local_key: str | None = None) -> Part:
    """Parameters of their own for the layers with windows, which have no scaling.

    Args:
      theta, local_theta: the bases if the file names none.
      local_key: key of the local base in older files.
    """
    local_key = local_key or "rope_local_base_freq"
    defaults: Keys = {"rope_parameters": None, "rope_scaling": None, "rope_theta": theta}

    def read(given: Keys) -> Fields:
        nested = given["rope_parameters"] or {}
        found = dict(nested.get(GLOBAL) or {}) | (given["rope_scaling"] or {})
        near = dict(nested.get(LOCAL) or {})
        fields = {
            "rope_theta": float(found.pop("rope_theta", None) or given["rope_theta"]),
            "rope_local_theta": float(near.pop("rope_theta", None) or given[local_key]),
        }
        if _scaling(near, given, ("default",)):
            raise UserError(
                f"config.json has scaled rope parameters for {LOCAL}: only {GLOBAL} can have them."
            )
        return fields | _scaling(found, given, KINDS)

    def write(config: ModelConfig) -> Keys:
        near = config.rope_theta if config.rope_local_theta is None else config.rope_local_theta
        parameters = {
            GLOBAL: _parameters(config, KINDS),
            LOCAL: {"rope_type": "default", "rope_theta": near},
        }
        return {"rope_parameters": parameters} | _lengths(config, KINDS)

    return Part(read, write, defaults | {local_key: local_theta})


def _lengths(config: ModelConfig, kinds: Collection[str]) -> Keys:
    """The lengths that transformers wants outside of the rope parameters."""
    scaling = config.rope_scaling
    if isinstance(scaling, DynamicRope) and "dynamic" in kinds:
        return {"max_position_embeddings": scaling.original_max_seq_len}
    if isinstance(scaling, LongRope) and "longrope" in kinds:
        return {"original_max_position_embeddings": scaling.original_max_seq_len}
    return {}


RENAMED = {
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow", "attention_factor", "truncate"),
}
"""Kind of scaling → its fields that have the same name in transformers."""


def _parameters(config: ModelConfig, kinds: Collection[str]) -> Keys:
    scaling = config.rope_scaling
    made: Keys = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is None or scaling.kind not in kinds:
        if "default" in kinds:
            return made
        scaling = YarnRope(factor=1.0, original_max_seq_len=config.max_seq_len)
    made["rope_type"] = scaling.kind
    if isinstance(scaling, LongRope):
        ones = [1.0] * (config.rotary_dim // 2)
        return made | {
            "factor": config.max_seq_len / scaling.original_max_seq_len,
            "short_factor": list(scaling.short_factors) or ones,
            "long_factor": list(scaling.long_factors) or ones,
            "attention_factor": scaling.attention_factor,
            "original_max_position_embeddings": scaling.original_max_seq_len,
        }
    made["factor"] = scaling.factor
    if isinstance(scaling, Llama3Rope | YarnRope):
        made["original_max_position_embeddings"] = scaling.original_max_seq_len
    held = {name: getattr(scaling, name) for name in RENAMED.get(scaling.kind, ())}
    return made | {name: value for name, value in held.items() if value is not None}


def _scaling(found: Keys, given: Keys, kinds: Collection[str]) -> Fields:
    """`rope_scaling` and what follows from it; `found` holds the rope parameters, and is emptied.

    Raises:
      UserError: the type, or a parameter, is not supported.
    """
    kind = found.pop("rope_type", None) or found.get("type") or "default"
    found.pop("type", None)
    # Some files say twice what config.json says.
    if found.get("max_position_embeddings") == given["max_position_embeddings"]:
        found.pop("max_position_embeddings")
    if kind in ("su", "yarn") and "yarn" not in kinds and "longrope" in kinds:
        kind = "longrope"  # what the first files of Phi-3 call it
    if kind not in kinds:
        raise UserError(f"config.json has rope_type {kind!r}: supported are {', '.join(kinds)}.")
    fields = _READERS[kind](found, given)
    for key, value in found.items():
        if value is not None:
            raise UserError(f"config.json has rope parameter {key} = {value!r}: not supported.")
    return fields


def _original(found: Keys, given: Keys) -> int:
    """The context of pretraining; transformers prefers what stands outside of the parameters."""
    own = found.pop("original_max_position_embeddings", None)
    outside = given.get("original_max_position_embeddings")
    return int(outside or own or given["max_position_embeddings"])


def _default(found: Keys, given: Keys) -> Fields:
    for key in ("original_max_position_embeddings", "factor", "attention_factor"):
        found.pop(key, None)  # not read without a scaling
    return {}


def _linear(found: Keys, given: Keys) -> Fields:
    found.pop("original_max_position_embeddings", None)
    return {"rope_scaling": LinearRope(factor=float(found.pop("factor", None) or 1.0))}


def _dynamic(found: Keys, given: Keys) -> Fields:
    """`max_position_embeddings` is the context of pretraining."""
    found.pop("original_max_position_embeddings", None)
    factor, original = float(found.pop("factor", None) or 1.0), given["max_position_embeddings"]
    scaling = DynamicRope(factor=factor, original_max_seq_len=original)
    return {"rope_scaling": scaling, "max_seq_len": int(factor * original)}


def _llama3(found: Keys, given: Keys) -> Fields:
    scaling = Llama3Rope(
        factor=float(found.pop("factor", None) or 1.0),
        original_max_seq_len=_original(found, given),
        low_freq_factor=found.pop("low_freq_factor", 1.0),
        high_freq_factor=found.pop("high_freq_factor", 4.0),
    )
    return {"rope_scaling": scaling}


def _yarn(found: Keys, given: Keys) -> Fields:
    """`mscale` and `mscale_all_dim` are another way to write the attention factor."""
    original = _original(found, given)
    factor = float(found.pop("factor", None) or given["max_position_embeddings"] / original)
    scaled, all_dim = found.pop("mscale", None), found.pop("mscale_all_dim", None)
    attention = found.pop("attention_factor", None)
    if attention is None and scaled and all_dim:
        grown = math.log(factor) if factor > 1 else 0.0
        attention = (0.1 * scaled * grown + 1) / (0.1 * all_dim * grown + 1)
    own = YarnRope(factor=factor).temperature
    if attention is not None and math.isclose(attention, own, rel_tol=1e-6):
        attention = None
    scaling = YarnRope(
        factor=factor,
        original_max_seq_len=original,
        beta_fast=found.pop("beta_fast", None) or 32.0,
        beta_slow=found.pop("beta_slow", None) or 1.0,
        attention_factor=attention,
        truncate=found.pop("truncate", True) is not False,
        query_beta=found.pop(QUERY_BETA, None) or 0.0,
    )
    return {"rope_scaling": scaling}


def _longrope(found: Keys, given: Keys) -> Fields:
    original = _original(found, given)
    factor = found.pop("factor", None) or given["max_position_embeddings"] / original
    attention = found.pop("attention_factor", None)
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short, long = (found.pop(f"{name}_factor", None) for name in ("short", "long"))
    scaling = LongRope(
        original_max_seq_len=original,
        short_factors=_numbers("short_factor", short),
        long_factors=_numbers("long_factor", long),
        attention_factor=attention,
    )
    return {"rope_scaling": scaling}


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    right = isinstance(value, list) and value and all(type(one) in (int, float) for one in value)
    if not right:
        raise UserError(
            f"config.json has rope_type 'longrope' with {key} = {value!r}: give a list of numbers."
        )
    return tuple(float(one) for one in value)


_READERS = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
