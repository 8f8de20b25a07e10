"""The families of Hugging Face whose models are not decoders, one small file each.

A file is imported when a model is of its kind, so that reading the config of a decoder needs no
JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from llm_jax.config import (
    Architecture,
    EncoderConfig,
    ModelConfig,
    ModernEncoderConfig,
    UserError,
)

if TYPE_CHECKING:
    from llm_jax.convert.others.other import Other

__all__ = ["OTHERS", "other_named", "other_of"]

OTHERS = {
    "bert": ("encoder", "bert:BERT"),
    "modernbert": ("modern_encoder", "modern_bert:MODERN_BERT"),
    "t5": ("encoder_decoder", "t5:T5"),
}
"""`model_type` → `model.kind`, and the file and name of its family."""


def other_of(config: Architecture) -> Other | None:
    """The family of an architecture; None for a decoder.

    Raises:
      UserError: transformers has none of its kind.
    """
    if isinstance(config, ModelConfig):
        return None
    for model_type, (kind, _) in OTHERS.items():
        if kind == config.kind:
            other = other_named(model_type)
            if other is None or not isinstance(config, EncoderConfig | ModernEncoderConfig):
                return other
            from llm_jax.convert.others.heads import with_head

            return with_head(other, config)
    raise UserError(f"model.kind is {config.kind!r}, of which transformers has no class.")


def other_named(model_type: object) -> Other | None:
    """The family of a `model_type`; None if it is not one of these."""
    if not isinstance(model_type, str) or model_type not in OTHERS:
        return None
    file, name = OTHERS[model_type][1].split(":")
    found: Other = getattr(importlib.import_module(f"{__name__}.{file}"), name)
    return found
