"""Any architecture that a run can have, and what all of them answer."""

from __future__ import annotations

from llm_jax.config import extensions
from llm_jax.config.encoder import EncoderConfig
from llm_jax.config.encoder_decoder import EncoderDecoderConfig
from llm_jax.config.errors import UserError, require
from llm_jax.config.heads import LABELLED
from llm_jax.config.model import ModelConfig
from llm_jax.config.modern_encoder import ModernEncoderConfig
from llm_jax.config.recurrent import RecurrentConfig
from llm_jax.config.recurrent_encoder_decoder import RecurrentEncoderDecoderConfig
from llm_jax.config.transformer_encoder_decoder import TransformerEncoderDecoderConfig
from llm_jax.config.word2vec import Word2VecConfig

SourceToTarget = (
    EncoderDecoderConfig | RecurrentEncoderDecoderConfig | TransformerEncoderDecoderConfig
)
"""The architectures that read a source and write a target."""
Architecture = (
    ModelConfig
    | EncoderConfig
    | ModernEncoderConfig
    | EncoderDecoderConfig
    | RecurrentConfig
    | RecurrentEncoderDecoderConfig
    | TransformerEncoderDecoderConfig
    | Word2VecConfig
)
"""What `RunConfig.model` may be; its `kind` tells which."""
OBJECTIVES = {
    "encoder": "masked",
    "modern_encoder": "masked",
    "encoder_decoder": "spans",
    "recurrent_encoder_decoder": "spans",
    "transformer_encoder_decoder": "spans",
    "word2vec": "negative_samples",
}
"""Kind of a model that is not a decoder → the objective of ours that trains it."""


def layers_of(model: Architecture) -> ModelConfig:
    """The options of its attention, its MLPs and its norms."""
    return model if isinstance(model, ModelConfig) else model.layers


def decoder_of(model: Architecture, what: str) -> ModelConfig:
    """The architecture of a decoder, or of a family of your own.

    Args:
      what: what is made for a decoder alone, for the beginning of the error.

    Raises:
      UserError: it is another kind of model.
    """
    if not isinstance(model, ModelConfig):
        raise UserError(f"{what} is for decoders, and model.kind is {model.kind!r}.")
    return model


def check_attention(model: Architecture, attention: str) -> None:
    """Raises `ConfigError` for an implementation that cannot compute this kind's attention."""
    require(
        not isinstance(model, EncoderDecoderConfig) or attention in ("auto", "reference"),
        f"compute.attention is {attention!r}, but model.kind is {model.kind!r}, whose scores have "
        "a bias that only plain attention computes: set it to 'auto'.",
    )


def generative_of(model: Architecture, what: str) -> ModelConfig | RecurrentConfig:
    """The architecture of a model that continues text token by token; raises as `decoder_of`."""
    return model if isinstance(model, RecurrentConfig) else decoder_of(model, what)


def has_head(model: Architecture) -> bool:
    """Whether it is an encoder with a head that learns from labelled examples."""
    return isinstance(model, EncoderConfig | ModernEncoderConfig) and model.head in LABELLED


def trained_by(model: Architecture) -> str | None:
    """The objective of ours that trains a model which is not a decoder: of an encoder with another
    head than `masked`, that of the head. None for a decoder."""
    if isinstance(model, EncoderConfig | ModernEncoderConfig):
        return model.head
    return OBJECTIVES.get(model.kind)


def check_objective(model: Architecture, objective: str) -> None:
    """Raises `ConfigError` for an objective of ours that does not train this kind of model."""
    wanted = trained_by(model)
    if isinstance(model, EncoderConfig | ModernEncoderConfig):
        require(
            objective == wanted or objective not in LABELLED,
            f"objective is {objective!r}, but model.head is {wanted!r}: leave it out, and give a "
            "dataset of `llm-jax data label` as data.path: head and labels are those of its "
            "examples.",
        )
    require(
        wanted is None or objective == wanted or objective not in extensions.OBJECTIVES,
        f"objective is {objective!r}, but model.kind is {model.kind!r}: set objective to "
        f"{wanted!r}.",
    )
    others = [kind for kind, name in OBJECTIVES.items() if name == objective]
    if objective in LABELLED:
        others = [kind for kind, name in OBJECTIVES.items() if name == "masked"]
    require(
        not others or model.kind in others,
        f"objective is {objective!r}, which trains model.kind {' or '.join(map(repr, others))}, "
        f"but model.kind is {model.kind!r}: set objective to 'next_token'.",
    )
