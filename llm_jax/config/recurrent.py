"""The architecture of a recurrent network as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive
from llm_jax.config.model import ModelConfig
from llm_jax.config.model_checks import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """A language model of stacked LSTM or GRU layers: what Transformers are measured against."""

    kind: Literal["recurrent"] = "recurrent"
    """Family of architectures (`models/protocol.py`)."""
    cell: Literal["lstm", "gru"] = "lstm"
    """The layer: LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), or
    GRU (Cho et al. 2014)."""
    vocab_size: int
    """Rows of the embedding table."""
    num_layers: int
    """Recurrent layers."""
    d_model: int
    """Width of the embedding and of each layer's state."""
    max_seq_len: int
    """Longest text that it is given at once, in tokens. No parameter depends on it."""
    tie_embeddings: bool = True
    """Use the embedding table as the output matrix too (Press & Wolf 2017)."""

    def __post_init__(self) -> None:
        positive("model", self, "num_layers", most=MOST_LAYERS)
        positive("model", self, "vocab_size", "d_model", "max_seq_len")

    @property
    def layers(self) -> ModelConfig:
        """A Transformer whose widths a mesh splits in the same way, for checks of sizes."""
        return ModelConfig(
            vocab_size=self.vocab_size,
            num_layers=self.num_layers,
            d_model=self.d_model,
            num_heads=self.d_model,
            num_kv_heads=self.d_model,
            head_dim=1,
            d_ff=self.d_model,
            max_seq_len=self.max_seq_len,
            positions="learned",
            tie_embeddings=self.tie_embeddings,
        )
