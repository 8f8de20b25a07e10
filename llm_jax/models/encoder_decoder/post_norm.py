"""The decoder's block of the original Transformer: each sum with the residual stream is normalised.

The encoder's block is BERT's (`models/encoder/bert.py`).
"""

from __future__ import annotations

import math

import jax
from flax import nnx

from llm_jax.attention.biased import biased_attention
from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import TransformerEncoderDecoderConfig
from llm_jax.models.common.layers import Attention, Mlp, Norm, Product
from llm_jax.models.encoder_decoder.blocks import DecoderShared
from llm_jax.parallel.mesh import constrain


class CrossAttention(Attention):
    """Queries of the target, keys and values of the source."""

    def keys(self, memory_BSD: jax.Array, matmul: Product) -> tuple[jax.Array, jax.Array]:
        """Keys and values of the source, (B, S, N, H) each."""
        dtype = memory_BSD.dtype
        k_BSNH = self._heads(memory_BSD, self.k, matmul) + self.k_bias[...].astype(dtype)
        v_BSNH = self._heads(memory_BSD, self.v, matmul) + self.v_bias[...].astype(dtype)
        return (
            constrain(k_BSNH, "batch", "length", "heads", "head_dim"),
            constrain(v_BSNH, "batch", "length", "heads", "head_dim"),
        )

    def read(
        self, x_BTD: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, shared: DecoderShared
    ) -> jax.Array:
        """Output, (B, T, D) in the dtype of `x_BTD`."""
        dtype, scale = x_BTD.dtype, 1 / math.sqrt(self.config.head_dim)
        q_BTNH = self._heads(x_BTD, self.q, shared.matmul) + self.q_bias[...].astype(dtype)
        q_BTNH = constrain(scale * q_BTNH, "batch", "length", "heads", "head_dim")
        out_BTNH = biased_attention(q_BTNH, k_BSNH, v_BSNH, None, shared.seen_BTS)
        w_nD = self.o[...].reshape(-1, x_BTD.shape[-1]).astype(dtype)
        out_BTD = shared.matmul(out_BTNH.reshape(*x_BTD.shape[:2], -1), w_nD)
        return out_BTD + self.o_bias[...].astype(dtype)


class DecoderBlock(nnx.Module):
    """Causal attention, attention to the source, then an MLP."""

    def __init__(self, config: TransformerEncoderDecoderConfig, rngs: nnx.Rngs):
        layers = config.layers
        self.attn = Attention(layers, rngs)
        self.attn_norm = Norm(layers, config.d_model)
        self.cross = nnx.Dict({"attn": CrossAttention(layers, rngs)})
        self.cross_norm = Norm(layers, config.d_model)
        self.mlp = Mlp(layers, rngs)
        self.mlp_norm = Norm(layers, config.d_model)

    def __call__(
        self, x_BTD: jax.Array, shared: DecoderShared, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache, None]:
        """Applies the block; arguments and results are those of T5's (`blocks.DecoderBlock`)."""
        own, source = (None, None) if cache is None else (cache["own"], cache["source"])
        h_BTD, own = self.attn(x_BTD, shared.own, mask, own)
        x_BTD = constrain(self.attn_norm(x_BTD + h_BTD), "batch", "length", "act_embed")
        cross: CrossAttention = self.cross["attn"]
        if source is None:
            assert shared.memory_BSD is not None
            k_BSNH, v_BSNH = cross.keys(shared.memory_BSD, shared.matmul)
        else:
            k_BSNH, v_BSNH = source["k"], source["v"]
        h_BTD = cross.read(x_BTD, k_BSNH, v_BSNH, shared)
        x_BTD = constrain(self.cross_norm(x_BTD + h_BTD), "batch", "length", "act_embed")
        h_BTD = self.mlp(x_BTD, shared.matmul)
        x_BTD = constrain(self.mlp_norm(x_BTD + h_BTD), "batch", "length", "act_embed")
        return x_BTD, own, None
