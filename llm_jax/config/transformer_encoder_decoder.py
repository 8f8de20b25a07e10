"""The architecture of the original Transformer as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.inner_layers import check_heads_divide, inner_layers
from llm_jax.config.model import ModelConfig
from llm_jax.config.model_checks import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class TransformerEncoderDecoderConfig:
    """The Transformer of Vaswani et al. 2017, as Marian (Junczys-Dowmunt et al. 2018) and BART
    (Lewis et al. 2020) have it: LayerNorm after each sum with the residual stream, and one table
    of tokens for the source, the target and the output."""

    kind: Literal["transformer_encoder_decoder"] = "transformer_encoder_decoder"
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
    """Attention heads, each of d_model/num_heads."""
    d_ff: int
    """Width of the MLPs."""
    max_seq_len: int
    """Longest source and longest target, in tokens."""
    activation: Literal["relu", "gelu_exact"] = "relu"
    """Of the MLPs: that of the paper, or BART's."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """Sines and cosines, which are no parameters, or a table for each side (BART)."""
    scale_embeddings: bool = True
    """Multiply the rows of tokens by sqrt(d_model) before positions are added (§3.4)."""
    embed_norm: bool = False
    """LayerNorm after tokens and positions are added (BART)."""
    target_start: Literal["pad", "eos"] = "pad"
    """The token before the first of a target: padding (Marian), or the end of a text (BART)."""
    sentinels: int = 100
    """Ids after the tokenizer's own that stand for hidden spans, unless it has `<extra_id_0>`."""

    def __post_init__(self) -> None:
        positive("model", self, "num_layers", "num_decoder_layers", most=MOST_LAYERS)
        positive("model", self, "vocab_size", "d_model", "num_heads", "d_ff", "max_seq_len")
        positive("model", self, "sentinels")
        check_heads_divide(self)
        require(
            self.d_model % 2 == 0 or self.positions == "learned",
            f"model.d_model is {self.d_model}, of which sines and cosines have half each: make it "
            "even, or set model.positions to 'learned'.",
        )

    @property
    def layers(self) -> ModelConfig:
        """The options of its attention, its MLPs and its norms."""
        return inner_layers(
            self,
            activation=self.activation,
            norm="layernorm",
            norm_eps=1e-5,
            positions="learned",
            biases=("qkv", "out", "mlp"),
        )
