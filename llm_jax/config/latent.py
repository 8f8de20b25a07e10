"""Multi-head latent attention as data."""

from __future__ import annotations

from dataclasses import dataclass

from llm_jax.config.errors import positive, require


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Multi-head latent attention (DeepSeek-V2, 2024, §2.1): all heads expand their keys and values
    from one compressed latent. Only that, and one rotary key that they share, are cached."""

    kv_rank: int
    """Width of the latent of keys and values."""
    q_rank: int | None = None
    """Width of the latent of queries. None: queries are not compressed."""
    rope_dim: int
    """Rotated part of a head, whose key all heads share: the last entries of `model.head_dim`."""
    value_dim: int
    """Size of a value, which need not be that of a key."""

    def __post_init__(self) -> None:
        positive("model.latent", self, "kv_rank", "rope_dim", "value_dim")
        if self.q_rank is not None:
            positive("model.latent", self, "q_rank")
        require(
            self.rope_dim % 2 == 0,
            f"model.latent.rope_dim is {self.rope_dim}: rotary positions need an even number.",
        )

    @property
    def ranks(self) -> tuple[int, ...]:
        """Widths of its latents, which the mesh splits as it splits the width of the model."""
        return (self.kv_rank,) if self.q_rank is None else (self.kv_rank, self.q_rank)
