"""The blocks of T5: pre-norm, RMSNorm, no biases, scores that are not scaled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.biased import biased_attention
from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import EncoderDecoderConfig, ModelConfig
from llm_jax.models.common.layers import (
    Attention,
    Mlp,
    Norm,
    Product,
    Shared,
    dense,
    init_std,
    normal,
)
from llm_jax.models.protocol import Params
from llm_jax.parallel.mesh import constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecoderShared:
    """What all blocks of a decoder share."""

    own: Shared
    """For the attention to the target."""
    memory_BSD: jax.Array | None
    """The encoder's output. None if the caches have its keys and values."""
    seen_BTS: jax.Array
    """bool, True where a position of the target sees one of the source."""
    matmul: Product = field(default_factory=lambda: dense, metadata={"static": True})


class SelfAttention(Attention):
    """Attention whose initial scores are as if they were scaled by 1/sqrt(head_dim)."""

    def __init__(self, config: EncoderDecoderConfig, rngs: nnx.Rngs):
        layers = config.layers
        super().__init__(layers, rngs)
        D, N, H = config.d_model, config.num_heads, config.head_dim
        std = init_std(layers) / math.sqrt(H)
        self.q = normal(rngs, (D, N, H), ("embed", "heads", "head_dim"), std)


class CrossAttention(SelfAttention):
    """Queries of the target, keys and values of the source, without positions."""

    def keys(self, memory_BSD: jax.Array, matmul: Product) -> tuple[jax.Array, jax.Array]:
        """Keys and values of the source, (B, S, N, H) each."""
        k_BSNH, v_BSNH = (self._heads(memory_BSD, w, matmul) for w in (self.k, self.v))
        return (
            constrain(k_BSNH, "batch", "length", "heads", "head_dim"),
            constrain(v_BSNH, "batch", "length", "heads", "head_dim"),
        )

    def read(
        self, x_BTD: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, shared: DecoderShared
    ) -> jax.Array:
        """Output, (B, T, D) in the dtype of `x_BTD`."""
        q_BTNH = self._heads(x_BTD, self.q, shared.matmul)
        q_BTNH = constrain(q_BTNH, "batch", "length", "heads", "head_dim")
        out_BTNH = biased_attention(q_BTNH, k_BSNH, v_BSNH, None, shared.seen_BTS)
        w_nD = self.o[...].reshape(-1, x_BTD.shape[-1]).astype(x_BTD.dtype)
        return shared.matmul(out_BTNH.reshape(*x_BTD.shape[:2], -1), w_nD)


class EncoderBlock(nnx.Module):
    """Attention on both sides, then an MLP."""

    def __init__(self, config: EncoderDecoderConfig, rngs: nnx.Rngs):
        layers = config.layers
        self.attn_norm = Norm(layers, config.d_model)
        self.attn = SelfAttention(config, rngs)
        self.mlp_norm = Norm(layers, config.d_model)
        self.mlp = Mlp(layers, rngs)

    def __call__(
        self, x_BTD: jax.Array, shared: Shared, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache, None]:
        """x_BTD after the block, in its dtype; the cache is passed through."""
        h_BTD, cache = self.attn(self.attn_norm(x_BTD), shared, mask, cache)
        x_BTD = constrain(x_BTD + h_BTD, "batch", "length", "act_embed")
        h_BTD = self.mlp(self.mlp_norm(x_BTD), shared.matmul)
        return constrain(x_BTD + h_BTD, "batch", "length", "act_embed"), cache, None


class DecoderBlock(nnx.Module):
    """Causal attention, attention to the source, then an MLP."""

    def __init__(self, config: EncoderDecoderConfig, rngs: nnx.Rngs):
        layers = config.layers
        self.attn_norm = Norm(layers, config.d_model)
        self.attn = SelfAttention(config, rngs)
        self.cross_norm = Norm(layers, config.d_model)
        self.cross = nnx.Dict({"attn": CrossAttention(config, rngs)})
        self.mlp_norm = Norm(layers, config.d_model)
        self.mlp = Mlp(layers, rngs)

    def __call__(
        self, x_BTD: jax.Array, shared: DecoderShared, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache, None]:
        """Applies the block.

        Args:
          cache: in generation, `own` of the target, and `source`, the keys and values of the
            source; None in training.

        Returns:
          x_BTD after the block, `own` as `shared.own.attend` left it, and no routing.
        """
        own, source = (None, None) if cache is None else (cache["own"], cache["source"])
        h_BTD, own = self.attn(self.attn_norm(x_BTD), shared.own, mask, own)
        x_BTD = constrain(x_BTD + h_BTD, "batch", "length", "act_embed")
        cross: CrossAttention = self.cross["attn"]
        if source is None:
            assert shared.memory_BSD is not None
            k_BSNH, v_BSNH = cross.keys(shared.memory_BSD, shared.matmul)
        else:
            k_BSNH, v_BSNH = source["k"], source["v"]
        h_BTD = cross.read(self.cross_norm(x_BTD), k_BSNH, v_BSNH, shared)
        x_BTD = constrain(x_BTD + h_BTD, "batch", "length", "act_embed")
        h_BTD = self.mlp(self.mlp_norm(x_BTD), shared.matmul)
        x_BTD = constrain(x_BTD + h_BTD, "batch", "length", "act_embed")
        return x_BTD, own, None


def first_caches(
    params: Params, memory_BSD: jax.Array, segments_BS: jax.Array, room: int, layers: ModelConfig
) -> tuple[Cache, Cache]:
    """What `protocol.Translator.begin` returns of Transformer blocks: keys and values of the source
    for all layers of the decoder, (L, B, S, N, H) each, with what is `seen` of it, and empty ones
    of the target, (L, B, room, N, H)."""
    attn, dtype = params["decoder"]["cross"]["attn"], memory_BSD.dtype

    def of_source(name: str) -> jax.Array:
        out_LBSNH = jnp.einsum("BSD,LDNH->LBSNH", memory_BSD, attn[name].astype(dtype))
        bias_LNH = attn.get(f"{name}_bias")
        return out_LBSNH if bias_LNH is None else out_LBSNH + bias_LNH[:, None, None].astype(dtype)

    source = {name: of_source(name) for name in ("k", "v")}
    shape = (len(attn["k"]), len(memory_BSD), room, layers.num_heads, layers.head_dim)
    own = {name: jnp.zeros(shape, dtype) for name in ("k", "v")}
    return source | {"seen": (segments_BS > 0)[None]}, own
