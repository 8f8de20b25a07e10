"""The architecture and the sampling of word2vec as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Word2VecConfig:
    """Vectors of tokens from the tokens around them (Mikolov et al. 2013). A token is a piece of
    the tokenizer, not always a word."""

    kind: Literal["word2vec"] = "word2vec"
    """Family of architectures (`models/protocol.py`)."""
    method: Literal["skip_gram", "cbow"] = "skip_gram"
    """What predicts what: each token those around it (skip-gram), or the mean of those around it
    the token itself (continuous bag of words)."""
    vocab_size: int
    """Rows of each of the two tables."""
    d_model: int
    """Size of a vector."""
    max_seq_len: int
    """Longest text that it is given at once, in tokens. Nothing in the parameters depends on it."""
    window: int = 5
    """Most tokens on each side. Each place draws its own number from 1 to this, so near ones count
    more."""
    negatives: int = 5
    """Random tokens that each prediction is set against."""
    power: float = 0.75
    """A token is drawn as a negative in proportion to its count to this power."""
    subsample: float = 1e-3
    """Tokens of frequency f stay with probability sqrt(t/f) + t/f, where t is this; 0: all stay."""

    def __post_init__(self) -> None:
        positive("model", self, "vocab_size", "d_model", "max_seq_len", "window", "negatives")
        for name in ("power", "subsample"):
            value = getattr(self, name)
            require(
                0 <= value < math.inf,
                f"model.{name} is {value}: give a finite number from 0 on.",
            )

    @property
    def layers(self) -> ModelConfig:
        """A Transformer whose tables a mesh splits in the same way, for checks of sizes."""
        return ModelConfig(
            vocab_size=self.vocab_size,
            num_layers=1,
            d_model=self.d_model,
            num_heads=self.d_model,
            num_kv_heads=self.d_model,
            head_dim=1,
            d_ff=self.d_model,
            max_seq_len=self.max_seq_len,
            positions="learned",
            tie_embeddings=False,
        )
