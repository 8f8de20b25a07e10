"""The architecture of ModernBERT as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.heads import Head, check_head
from llm_jax.config.inner_layers import inner_layers
from llm_jax.config.model import ModelConfig
from llm_jax.config.model_checks import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class ModernEncoderConfig:
    """The architecture of ModernBERT (Warner et al. 2024): rotary positions, gated MLPs, norms
    before each sub-layer, no biases, and layers that see a window between those that see all."""

    kind: Literal["modern_encoder"] = "modern_encoder"
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
    """Width of the gated MLP."""
    max_seq_len: int
    """Longest text, in tokens."""
    window: int = 128
    """Tokens that a local layer sees: half of them on each side."""
    global_every: int = 3
    """The first layer of each group of so many sees all of its text; the others a window."""
    rope_theta: float = 160_000.0
    """Base of the rotary frequencies of layers that see all."""
    local_rope_theta: float = 10_000.0
    """Base of the rotary frequencies of layers that see a window."""
    norm_eps: float = 1e-5
    """Added to the variance before the square root."""
    head: Head = "masked"
    """What is above the last layer: hidden tokens (`masked`), a label of a text (`classify`) or of
    each word (`tag`), begin and end of an answer (`answer`), or nothing (`embed`)."""
    labels: tuple[str, ...] = ()
    """Names of the outputs of `classify` and `tag`, in their order."""

    def __post_init__(self) -> None:
        positive("model", self, "num_layers", most=MOST_LAYERS)
        positive("model", self, "vocab_size", "d_model", "num_heads", "d_ff", "max_seq_len")
        positive("model", self, "window", "global_every", "rope_theta", "local_rope_theta")
        positive("model", self, "norm_eps")
        require(
            self.d_model % (2 * self.num_heads) == 0,
            f"model.d_model is {self.d_model}, but model.num_heads = {self.num_heads} heads with "
            "rotary positions need a multiple of twice their number: change one of them.",
        )
        require(
            self.window % 2 == 0,
            f"model.window is {self.window}: half of it is on each side, so give an even number.",
        )
        check_head(self)

    @property
    def whole(self) -> tuple[bool, ...]:
        """For each layer, whether it sees all of its text."""
        return tuple(i % self.global_every == 0 for i in range(self.num_layers))

    @property
    def layers(self) -> ModelConfig:
        """The options of its attention, its MLPs and its norms."""
        return inner_layers(
            self,
            activation="gelu_exact",
            norm="layernorm",
            norm_weights="scale",
            norm_eps=self.norm_eps,
            rope_theta=self.rope_theta,
            rope_local_theta=self.local_rope_theta,
        )
