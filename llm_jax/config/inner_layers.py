"""The attention, MLPs and norms of other models than decoders, as the options of a decoder."""

from __future__ import annotations

from typing import Any, Protocol

from llm_jax.config.errors import require
from llm_jax.config.model import ModelConfig


class Sizes(Protocol):
    """The sizes of a model of Transformer blocks."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def d_model(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def d_ff(self) -> int: ...
    @property
    def max_seq_len(self) -> int: ...


def inner_layers(sizes: Sizes, **options: Any) -> ModelConfig:
    """Layers of these sizes with `options` of `ModelConfig`: as many key heads as query heads, of
    d_model/num_heads each unless `head_dim` says otherwise, and one table for both ends."""
    own = {
        name: getattr(sizes, name)
        for name in ("vocab_size", "num_layers", "d_model", "num_heads", "d_ff", "max_seq_len")
    }
    own |= {"num_kv_heads": sizes.num_heads, "head_dim": sizes.d_model // sizes.num_heads}
    return ModelConfig(**own | {"tie_embeddings": True} | options)


def check_heads_divide(sizes: Sizes) -> None:
    """Raises `ConfigError` unless each head has the same share of the width."""
    require(
        sizes.d_model % sizes.num_heads == 0,
        f"model.d_model is {sizes.d_model}, which model.num_heads = {sizes.num_heads} does not "
        "divide: set num_heads to a divisor of d_model.",
    )
