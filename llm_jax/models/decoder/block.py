"""The residual block: attention, then an MLP or a mixture of experts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import ModelConfig
from llm_jax.models.common.layers import Attention, Mlp, Norm, Shared
from llm_jax.models.common.moe import Moe, Routing
from llm_jax.parallel.mesh import constrain


class Block(nnx.Module):
    """Residual block. `pre_norm` normalises what a sub-layer reads, `post_norm` what it adds.

    With `parallel_block`, attention and MLP read the same (Wang & Komatsuzaki 2021).
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, *, experts: bool = False):
        self.config, self.experts = config, experts
        if config.pre_norm:
            self.attn_norm = Norm(config, config.d_model)
        self.attn = Attention(config, rngs)
        if config.pre_norm and config.parallel_block != "one_norm":
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
        config, into_BTD = self.config, x_BTD
        h_BTD = gathered(self.attn_norm(x_BTD) if config.pre_norm else x_BTD)
        out_BTD, cache = self.attn(h_BTD, shared, mask, cache)
        x_BTD = self._added(x_BTD, out_BTD, "attn_post_norm")
        if config.parallel_block != "one_norm":
            read_BTD = x_BTD if config.parallel_block == "none" else into_BTD
            h_BTD = gathered(self.mlp_norm(read_BTD) if config.pre_norm else read_BTD)
        routing = None
        if self.experts:
            out_BTD, routing = self.moe(h_BTD, shared.matmul)
        else:
            out_BTD = self.mlp(h_BTD, shared.matmul)
        return self._added(x_BTD, out_BTD, "mlp_post_norm"), cache, routing

    def _added(self, x_BTD: jax.Array, out_BTD: jax.Array, norm: str) -> jax.Array:
        """The residual stream with the output of a sub-layer."""
        config, h_BTD = self.config, scattered(out_BTD)
        if config.post_norm:
            h_BTD = getattr(self, norm)(h_BTD)
        if config.residual_multiplier != 1:
            h_BTD *= jnp.asarray(config.residual_multiplier, h_BTD.dtype)
        return x_BTD + h_BTD


def gathered(x_BTD: jax.Array) -> jax.Array:
    """Input of a sub-layer: gathers the sequence length, which tensor parallelism splits."""
    return constrain(x_BTD, "batch", "length", "act_embed")


def scattered(x_BTD: jax.Array) -> jax.Array:
    """Output of a sub-layer: adds the partial sums of tensor parallelism, split by length."""
    return constrain(x_BTD, "batch", "stream_length", "act_embed")


def expert_block(config: ModelConfig, rngs: nnx.Rngs) -> Block:
    """A block with experts in place of the MLP."""
    return Block(config, rngs, experts=True)
