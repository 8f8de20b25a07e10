"""Multi-head latent attention (DeepSeek-V2, 2024, §2.1).

Legend in addition to the project's: R width of the latent of keys and values, r rotated part of a
head, V size of a value, U = H - r + V width of what a head expands from the latent.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import Cache, Latent, Mask
from llm_jax.config import ModelConfig
from llm_jax.models.common.layers import Norm, Product, Shared, init_std, normal, zeros
from llm_jax.models.common.rope import apply_rope
from llm_jax.parallel.mesh import constrain

EPS = 1e-6
"""Of the norms of latents: DeepSeek's code has no other, whatever the model's is."""


class LatentAttention(nnx.Module):
    """Self-attention whose keys and values are expanded from one latent per position.

    A head's query and key are H - r entries without positions, then r rotated ones. The rotated
    part of the key is the same for all heads.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        assert config.latent is not None
        latent, std = config.latent, init_std(config)
        D, N, H = config.d_model, config.num_heads, config.head_dim
        R, r, V = latent.kv_rank, latent.rope_dim, latent.value_dim
        self.config, self.latent = config, latent
        heads = ("embed", "heads", "head_dim")
        if latent.q_rank is None:
            self.q = normal(rngs, (D, N, H), heads, std)
        else:
            self.q_down = normal(rngs, (D, latent.q_rank), ("embed", "latent"), std)
            self.q_norm = Norm(config, latent.q_rank, "rmsnorm", eps=EPS)
            self.q_up = normal(rngs, (latent.q_rank, N, H), heads, std)
        self.kv_down = normal(rngs, (D, R), ("embed", "latent"), std)
        self.k_rope = normal(rngs, (D, r), ("embed", "latent"), std)
        self.kv_norm = Norm(config, R, "rmsnorm", eps=EPS)
        self.kv_up = normal(rngs, (R, N, H - r + V), heads, std)
        out_std = std / math.sqrt(2 * config.num_layers)
        self.o = normal(rngs, (N, V, D), ("heads", "head_dim", "embed"), out_std)
        if config.attn_sinks:
            self.sinks = zeros((N,), ("heads",))

    def __call__(
        self, x_BTD: jax.Array, shared: Shared, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Output, (B, T, D) in the dtype of `x_BTD`, and the updated cache."""
        config, dtype, matmul = self.config, x_BTD.dtype, shared.matmul
        plain = config.head_dim - self.latent.rope_dim
        q_BTNH = self._queries(x_BTD, matmul)
        latent_BTR = self.kv_norm(matmul(x_BTD, self.kv_down[...].astype(dtype)))
        k_BT1r = matmul(x_BTD, self.k_rope[...].astype(dtype))[:, :, None]
        if shared.rope is not None and mask.rotation is not None:
            rope = shared.rope[mask.rotation].keys
            q_BTNr, k_BT1r = apply_rope(q_BTNH[..., plain:], rope), apply_rope(k_BT1r, rope)
            q_BTNH = jnp.concatenate([q_BTNH[..., :plain], q_BTNr], axis=-1)
        up_BTNU = _heads(latent_BTR, self.kv_up, matmul)
        k_BTNr = jnp.broadcast_to(k_BT1r, (*up_BTNU.shape[:3], k_BT1r.shape[-1]))
        k_BTNH = jnp.concatenate([up_BTNU[..., :plain], k_BTNr], axis=-1)
        q_BTNH = constrain(q_BTNH, "batch", "length", "heads", "head_dim")
        k_BTNH = constrain(k_BTNH, "batch", "length", "kv_heads", "head_dim")
        v_BTNV = constrain(up_BTNU[..., plain:], "batch", "length", "kv_heads", "head_dim")
        sinks_N = self.sinks[...] if config.attn_sinks else None
        compressed = self._compressed(jnp.concatenate([latent_BTR, k_BT1r[:, :, 0]], axis=-1))
        out_BTNV, cache = shared.attend(q_BTNH, k_BTNH, v_BTNV, mask, cache, sinks_N, compressed)
        w_nD = self.o[...].reshape(-1, config.d_model).astype(dtype)
        return matmul(out_BTNV.reshape(*x_BTD.shape[:2], -1), w_nD), cache

    def _queries(self, x_BTD: jax.Array, matmul: Product) -> jax.Array:
        if self.latent.q_rank is None:
            return _heads(x_BTD, self.q, matmul)
        latent_BTQ = self.q_norm(matmul(x_BTD, self.q_down[...].astype(x_BTD.dtype)))
        return _heads(latent_BTQ, self.q_up, matmul)

    def _compressed(self, rows_BTR: jax.Array) -> Latent:
        """The cache's form of keys and values; what is not used of it is not computed."""
        plain = self.config.head_dim - self.latent.rope_dim
        up_RNU = self.kv_up[...].astype(rows_BTR.dtype)

        def absorb(q_BTNH: jax.Array) -> jax.Array:
            q_BTNR = jnp.einsum("BTNh,RNh->BTNR", q_BTNH[..., :plain], up_RNU[..., :plain])
            return jnp.concatenate([q_BTNR, q_BTNH[..., plain:]], axis=-1)

        def expand(mean_BTNR: jax.Array) -> jax.Array:
            return jnp.einsum("BTNR,RNV->BTNV", mean_BTNR, up_RNU[..., plain:])

        return Latent(rows_BTR, self.latent.kv_rank, absorb, expand)


def _heads(x_BTi: jax.Array, w_iNH: nnx.Param, matmul: Product) -> jax.Array:
    size, N, H = w_iNH.shape
    y_BTn = matmul(x_BTi, w_iNH[...].reshape(size, N * H).astype(x_BTi.dtype))
    return y_BTn.reshape(*x_BTi.shape[:2], N, H)
