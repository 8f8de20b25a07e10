"""The residual block: attention, then an MLP or a mixture of experts."""

from __future__ import annotations

import jax
from flax import nnx

from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import ModelConfig
from llm_jax.models.common.latent import LatentAttention
from llm_jax.models.common.layers import Attention, Mlp, Norm, Shared
from llm_jax.models.common.moe import Moe, Routing
from llm_jax.parallel.mesh import constrain


class Block(nnx.Module):
    """Pre-norm residual block; `post_norm` also normalises what each sub-layer adds (Gemma 2)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, *, experts: bool = False):
        self.post_norm, self.experts = config.post_norm, experts
        self.attn_norm = Norm(config, config.d_model)
        self.attn = (LatentAttention if config.latent else Attention)(config, rngs)
        self.mlp_norm = Norm(config, config.d_model)
        if experts:
            self.moe = Moe(config, rngs)
        else:
            self.mlp = Mlp(config, rngs)
        if config.post_norm:
            self.attn_post_norm = Norm(config, config.d_model)
            self.mlp_post_norm = Norm(config, config.d_model)

    def __call__(
        self, x_BTD: jax.Array, shared: Shared, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache, Routing | None]:
        """Applies the block.

        Args:
          x_BTD: residual stream, in the compute dtype.
          mask: which keys a query of this layer sees.
          cache: what `shared.attend` keeps for this layer.

        Returns:
          The residual stream after the block, the updated cache, and the `Routing` (None without
          experts).
        """
        h_BTD, cache = self.attn(gathered(self.attn_norm(x_BTD)), shared, mask, cache)
        h_BTD = scattered(h_BTD)
        x_BTD = x_BTD + (self.attn_post_norm(h_BTD) if self.post_norm else h_BTD)
        h_BTD, routing = gathered(self.mlp_norm(x_BTD)), None
        if self.experts:
            h_BTD, routing = self.moe(h_BTD, shared.matmul)
        else:
            h_BTD = self.mlp(h_BTD, shared.matmul)
        h_BTD = scattered(h_BTD)
        x_BTD = x_BTD + (self.mlp_post_norm(h_BTD) if self.post_norm else h_BTD)
        return x_BTD, cache, routing


def gathered(x_BTD: jax.Array) -> jax.Array:
    """Input of a sub-layer: gathers the sequence length, which tensor parallelism splits."""
    return constrain(x_BTD, "batch", "length", "act_embed")


def scattered(x_BTD: jax.Array) -> jax.Array:
    """Output of a sub-layer: adds the partial sums of tensor parallelism, split by length."""
    return constrain(x_BTD, "batch", "stream_length", "act_embed")


def expert_block(config: ModelConfig, rngs: nnx.Rngs) -> Block:
    """A block with experts in place of the MLP."""
    return Block(config, rngs, experts=True)
