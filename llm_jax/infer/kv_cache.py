"""The key/value cache, as an `Attend` of the model: prefill fills it, and each decoding step
extends it.

Slot s of a row holds the key and value of that row's position s. The prompts of a batch are padded
on the right. What padding writes lies after the row's own position: no query reads it, and it is
overwritten when the row gets there. So rows of different lengths need no bookkeeping.

Shape letters as in `attention/`, and S: slots, L: layers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from llm_jax.attention.mask import Attend, Cache, Mask
from llm_jax.attention.reference import reference_attention
from llm_jax.config import ComputeConfig, ModelConfig
from llm_jax.models.common.rope import apply_rope, rotates_late, rotations
from llm_jax.models.decoder.attend import packed_attend, scores
from llm_jax.models.protocol import Context


def empty_cache(config: ModelConfig, B: int, S: int, dtype: jnp.dtype) -> Cache:
    """An empty cache: `k` and `v`, zeros of shape (L, B, S, K, H)."""
    shape = (config.num_layers, B, S, config.num_kv_heads, config.head_dim)
    return {"k": jnp.zeros(shape, dtype), "v": jnp.zeros(shape, dtype)}


def prefill_attend(
    config: ModelConfig,
    compute: ComputeConfig,
    B: int,
    T: int,
    length_B: jax.Array | None = None,
) -> Attend:
    """Causal attention among positions 0 … T-1, which fill the first T slots.

    Args:
      length_B: tokens of each row; None: T.
    """
    last_B = jnp.full(B, T - 1) if length_B is None else length_B - 1
    causal = packed_attend(config, Context(compute), jnp.ones((B, T), jnp.int32))

    def attend(
        q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        rotated_BTKH = _rotated(k_BTKH, config, mask, last_B)
        out_BTNH, _ = causal(q_BTNH, rotated_BTKH, v_BTKH, mask, None)
        cache = {
            "k": cache["k"].at[:, :T].set(k_BTKH),
            "v": cache["v"].at[:, :T].set(v_BTKH),
        }
        return out_BTNH, cache

    return attend


def decode_attend(config: ModelConfig, position_B: jax.Array) -> Attend:
    """Attention of one query per row, at `position_B`, over the slots up to its own."""
    rows = jnp.arange(position_B.shape[0])

    def attend(
        q_B1NH: jax.Array, k_B1KH: jax.Array, v_B1KH: jax.Array, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        k_BSKH = cache["k"].at[rows, position_B].set(k_B1KH[:, 0])
        v_BSKH = cache["v"].at[rows, position_B].set(v_B1KH[:, 0])
        distance_B1S = (position_B[:, None] - jnp.arange(k_BSKH.shape[1]))[:, None]
        how, seen_B1S = scores(config), mask.sees(distance_B1S)
        far = None if how.slopes is None else distance_B1S
        rotated_BSKH = _rotated(k_BSKH, config, mask, position_B)
        out_B1NH = reference_attention(q_B1NH, rotated_BSKH, v_BSKH, seen_B1S, how, far)
        return out_B1NH, {"k": k_BSKH, "v": v_BSKH}

    return attend


def _rotated(k_BSKH: jax.Array, config: ModelConfig, mask: Mask, last_B: jax.Array) -> jax.Array:
    """The keys of slots 0 … S-1 as queries at position `last_B` see them.

    The cache of a model `rotates_late` holds keys before their rotation, since all frequencies
    change when a text outgrows the original context (LongRoPE).
    """
    if not rotates_late(config) or mask.rotation is None:
        return k_BSKH
    positions_BS = jnp.minimum(jnp.arange(k_BSKH.shape[1]), last_B[:, None])
    return apply_rope(k_BSKH, rotations(config, positions_BS)[mask.rotation].keys)
