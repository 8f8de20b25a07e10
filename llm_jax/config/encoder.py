"""The architecture of an encoder as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.heads import Head, check_head
from llm_jax.config.inner_layers import check_heads_divide, inner_layers
from llm_jax.config.model import ModelConfig
from llm_jax.config.model_checks import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The architecture of BERT (Devlin et al. 2019): each position sees all of its text."""

    kind: Literal["encoder"] = "encoder"
    """Family of architectures (`models/protocol.py`)."""
    vocab_size: int
    """Rows of the embedding table."""
    num_layers: int
    """Transformer blocks."""
    d_model: int
    """Width of the residual stream."""
    num_heads: int
    """Attention heads, each of d_model/num_heads."""
    d_ff: int
    """Width of the MLP."""
    max_seq_len: int
    """Rows of the table of positions."""
    types: int = 2
    """Rows of the table of types: which of two texts a token belongs to."""
    activation: Literal["gelu", "gelu_exact"] = "gelu_exact"
    """Of the MLP and of the output head: the tanh GELU, or that of the error function."""
    norm_eps: float = 1e-12
    """Added to the variance before the square root."""
    next_sentence: bool = False
    """Also learn whether the second half of a window follows the first (BERT's second task)."""
    head: Head = "masked"
    """What is above the last layer: hidden tokens (`masked`), a label of a text (`classify`) or of
    each word (`tag`), begin and end of an answer (`answer`), or nothing (`embed`)."""
    labels: tuple[str, ...] = ()
    """Names of the outputs of `classify` and `tag`, in their order."""

    def __post_init__(self) -> None:
        positive("model", self, "num_layers", most=MOST_LAYERS)
        positive("model", self, "vocab_size", "d_model", "num_heads", "d_ff", "max_seq_len")
        positive("model", self, "types", "norm_eps")
        check_heads_divide(self)
        check_head(self)
        require(
            not self.next_sentence or self.head == "masked",
            f"model.next_sentence is True, but model.head is {self.head!r}: set it to False.",
        )

    @property
    def layers(self) -> ModelConfig:
        """The options of its attention, its MLPs and its norms."""
        return inner_layers(
            self,
            activation=self.activation,
            norm="layernorm",
            norm_eps=self.norm_eps,
            positions="learned",
            biases=("qkv", "out", "mlp"),
        )
