"""The architecture of T5 as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.inner_layers import inner_layers
from llm_jax.config.model import ModelConfig
from llm_jax.config.model_checks import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """The architecture of T5 (Raffel et al. 2020): an encoder reads the source, and a decoder
    writes the target. Positions are a bias on scores by the bucket of the distance."""

    kind: Literal["encoder_decoder"] = "encoder_decoder"
    """Family of architectures (`models/protocol.py`)."""
    vocab_size: int
    """Rows of the embedding table: at least the tokenizer's pieces and the sentinels."""
    num_layers: int
    """Blocks of the encoder."""
    num_decoder_layers: int
    """Blocks of the decoder."""
    d_model: int
    """Width of the residual streams."""
    num_heads: int
    """Attention heads."""
    head_dim: int
    """Size of one head; all heads together need not be `d_model`."""
    d_ff: int
    """Width of the MLPs."""
    max_seq_len: int
    """Longest source, in tokens. Nothing in the parameters depends on it."""
    activation: Literal["relu", "geglu"] = "geglu"
    """Of the MLPs: `relu` of T5 1.0, the gated `geglu` of T5 1.1."""
    scaled_head: bool = True
    """Multiply the decoder's output by 1/sqrt(d_model) before the table of tokens, which is the
    output matrix (T5 1.0)."""
    buckets: int = 32
    """Buckets of distances."""
    max_distance: int = 128
    """Distances from here on share a bucket."""
    sentinels: int = 100
    """Ids after the tokenizer's own that stand for hidden spans, unless it has `<extra_id_0>`."""
    norm_eps: float = 1e-6
    """Added to the mean square before the square root."""

    def __post_init__(self) -> None:
        positive("model", self, "num_layers", "num_decoder_layers", most=MOST_LAYERS)
        positive("model", self, "vocab_size", "d_model", "num_heads", "head_dim", "d_ff")
        positive("model", self, "max_seq_len", "norm_eps", "sentinels", "max_distance", "buckets")
        require(
            self.buckets % 4 == 0 and self.max_distance > self.buckets // 2,
            f"model.buckets is {self.buckets} and model.max_distance is {self.max_distance}: give "
            "a multiple of 4, and a distance above half of it.",
        )

    @property
    def layers(self) -> ModelConfig:
        """The options of its attention, its MLPs and its norms."""
        return inner_layers(
            self,
            head_dim=self.head_dim,
            activation=self.activation,
            norm_eps=self.norm_eps,
            positions="learned",
            attn_scale=1.0,
        )
