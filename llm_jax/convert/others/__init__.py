"""The families of Hugging Face whose models are not decoders, one small file each."""

from __future__ import annotations

from llm_jax.config import Architecture, ModelConfig, UserError
from llm_jax.convert.others.bert import BERT
from llm_jax.convert.others.modern_bert import MODERN_BERT
from llm_jax.convert.others.other import Other
from llm_jax.convert.others.t5 import T5

__all__ = ["OTHERS", "Other", "other_named", "other_of"]

OTHERS = (BERT, MODERN_BERT, T5)


def other_of(config: Architecture) -> Other | None:
    """The family of an architecture; None for a decoder.

    Raises:
      UserError: transformers has none of its kind.
    """
    if isinstance(config, ModelConfig):
        return None
    for other in OTHERS:
        if other.kind == config.kind:
            return other
    raise UserError(f"model.kind is {config.kind!r}, of which transformers has no class.")


def other_named(model_type: object) -> Other | None:
    """The family of a `model_type`; None if it is not one of these."""
    return next((one for one in OTHERS if one.model_type == model_type), None)
