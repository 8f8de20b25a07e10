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
    TransformerEncoderDecoderConfig,
    UserError,
)

if TYPE_CHECKING:
    from llm_jax.convert.others.other import Other

__all__ = ["OTHERS", "other_named", "other_of"]

OTHERS = {
    "bert": ("encoder", "bert:BERT"),
    "modernbert": ("modern_encoder", "modern_bert:MODERN_BERT"),
    "t5": ("encoder_decoder", "t5:T5"),
    "marian": ("transformer_encoder_decoder", "marian:MARIAN"),
    "bart": ("transformer_encoder_decoder", "bart:BART"),
}
"""`model_type` → `model.kind`, and the file and name of its family."""


def other_of(config: Architecture) -> Other | None:
    """The family of an architecture; None for a decoder.

    Raises:
      UserError: transformers has none of its kind.
    """
    if isinstance(config, ModelConfig):
        return None
    if isinstance(config, TransformerEncoderDecoderConfig):
        return other_named(_marian_or_bart(config))
    for model_type, (kind, _) in OTHERS.items():
        if kind == config.kind:
            other = other_named(model_type)
            if other is None or not isinstance(config, EncoderConfig | ModernEncoderConfig):
                return other
            from llm_jax.convert.others.heads import with_head

            return with_head(other, config)
    raise UserError(f"model.kind is {config.kind!r}, of which transformers has no class.")


def _marian_or_bart(config: TransformerEncoderDecoderConfig) -> str:
    """The `model_type` of an original Transformer.

    Raises:
      UserError: transformers has no class with its positions and norms.
    """
    if config.embed_norm != (config.positions == "learned"):
        raise UserError(
            f"model.positions is {config.positions!r} and model.embed_norm is {config.embed_norm}, "
            "of which transformers has no class: Marian has 'sinusoidal' and False, BART 'learned' "
            "and True."
        )
    return "bart" if config.embed_norm else "marian"


def other_named(model_type: object) -> Other | None:
    """The family of a `model_type`; None if it is not one of these."""
    if not isinstance(model_type, str) or model_type not in OTHERS:
        return None
    file, name = OTHERS[model_type][1].split(":")
    found: Other = getattr(importlib.import_module(f"{__name__}.{file}"), name)
    return found
