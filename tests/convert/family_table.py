"""The table of families in docs/export.md, found by asking each family what it can express."""

from __future__ import annotations

import dataclasses
from typing import Any

from llm_jax.config import (
    ConfigError,
    DynamicRope,
    LinearRope,
    Llama3Rope,
    LongRope,
    ModelConfig,
    YarnRope,
)
from llm_jax.convert.families import FAMILIES
from llm_jax.convert.families.family import Family

BASE = ModelConfig(
    vocab_size=128, num_layers=4, d_model=32, num_heads=4, num_kv_heads=4, head_dim=8, d_ff=128,
    max_seq_len=64,
)  # fmt: skip
WINDOWS = {"sliding_window": 8, "window_pattern": "LG"}
OPTIONS: dict[str, dict[str, Any]] = {
    "few key/value heads": {"num_kv_heads": 2},
    "head size": {"head_dim": 16},
    "SwiGLU": {"activation": "swiglu"},
    "GeGLU": {"activation": "geglu"},
    "GELU": {"activation": "gelu"},
    "exact GELU": {"activation": "gelu_exact"},
    "ReLU": {"activation": "relu"},
    "ReLU²": {"activation": "relu2"},
    "xIELU": {"activation": "xielu"},
    "qkv bias": {"biases": ("qkv",)},
    "attention biases": {"biases": ("qkv", "out")},
    "biases": {"biases": ("qkv", "out", "mlp")},
    "windows": {"sliding_window": 8, "window_pattern": "L"},
    "windows in some layers": WINDOWS,
    "layers without positions": {"rope_pattern": "RRRN"},
    "those without a window have no positions": {**WINDOWS, "rope_pattern": "RN"},
    "local base": {**WINDOWS, "rope_local_theta": 100.0},
    "partly rotated heads": {"rotary_fraction": 0.5},
    "linear": {"rope_scaling": LinearRope()},
    "dynamic NTK": {"rope_scaling": DynamicRope(original_max_seq_len=32)},
    "Llama 3": {"rope_scaling": Llama3Rope()},
    "YaRN": {"rope_scaling": YarnRope(attention_factor=1.2)},
    "YaRN with growing queries": {"rope_scaling": YarnRope(query_beta=0.1)},
    "LongRoPE": {"rope_scaling": LongRope(long_factors=(2.0,) * 4)},
    "parallel, one norm": {"parallel_block": "one_norm"},
    "parallel, two norms": {"parallel_block": "two_norms"},
    "clipped qkv": {"qkv_clip": 8.0},
    "score scale": {"attn_scale": 16**-0.5},
    "score soft-cap": {"attn_softcap": 30.0},
    "logit soft-cap": {"logit_softcap": 30.0},
    "embedding multiplier": {"embed_multiplier": 2.0},
    "residual multiplier": {"residual_multiplier": 0.5},
    "logit multiplier": {"logit_multiplier": 0.5},
}
"""What a family may have beside what all its models have."""
ROPE = ("linear", "dynamic NTK", "Llama 3", "YaRN", "LongRoPE")
BEGIN, END = "<!-- families -->\n", "<!-- /families -->\n"


def table() -> str:
    """The table as Markdown."""
    rows = ["| model type | class | all have | may have |", "|---|---|---|---|"]
    for family in FAMILIES:
        said = [_said(name, value) for name, value in family.always.items()]
        always = ", ".join(said + ["experts"] * ("moe" in family.misfits(BASE)))
        rows.append(
            f"| `{family.model_type}` | `{family.architecture}` | {always or '–'} | "
            f"{', '.join(_may_have(family)) or '–'} |"
        )
    return "\n".join(rows) + "\n"


def _said(name: str, value: Any) -> str:
    if value is True:
        return f"`{name}`"
    shown = ", ".join(value) if isinstance(value, tuple) else value
    return f"`{name}` {shown}"


def _may_have(family: Family) -> list[str]:
    base = _base(family)
    found = [
        name
        for name, changes in OPTIONS.items()
        if any(getattr(base, field) != value for field, value in changes.items())
        and _expresses(family, base, changes)
    ]
    if set(ROPE) <= set(found):
        found = [name for name in found if name not in ROPE] + ["every rope scaling"]
    return found


def _base(family: Family) -> ModelConfig:
    """A small dense model of the family."""
    moe = {"moe": None} if "moe" in family.misfits(BASE) else {}
    for changes in ({}, {"num_kv_heads": 2}):
        given = dataclasses.replace(BASE, **changes)
        try:
            return ModelConfig(**(family.read(family.write(given)) | moe))
        except ConfigError:
            continue
    raise AssertionError(family.model_type)


def _expresses(family: Family, base: ModelConfig, changes: dict[str, Any]) -> bool:
    try:
        config = dataclasses.replace(base, **changes)
    except ConfigError:
        return False
    if isinstance(config.rope_scaling, DynamicRope):
        config = dataclasses.replace(config, max_seq_len=64)
    return not set(family.misfits(config)) - {"moe"}
