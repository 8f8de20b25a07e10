"""The key/value cache, as an `Attend` of the model: prefill fills it, and each decoding step
extends it. Its `config` is that of a decoder; a recurrent network, which has no attention, never
calls what is made.

Slot s of a row holds the key and value of that row's position s; of multi-head latent attention,
the latent that both are expanded from, and the rotary key that all heads share. The prompts of a
batch are padded on the right. What padding writes lies after the row's own position: no query reads
it, and it is overwritten when the row gets there. So rows of different lengths need no bookkeeping.

Shape letters as in `attention/`, and S: slots, L: layers, R: width of what latent attention keeps.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from llm_jax.attention.mask import Attend, Cache, Latent, Mask
from llm_jax.attention.reference import reference_attention
from llm_jax.config import ComputeConfig, ModelConfig, RecurrentConfig
from llm_jax.models.common.attend import packed_attend, scores
from llm_jax.models.common.rope import apply_rope, rotates_late, rotations
from llm_jax.models.protocol import Context
from llm_jax.models.recurrent.cells import zero_state


def empty_cache(config: ModelConfig | RecurrentConfig, B: int, S: int, dtype: jnp.dtype) -> Cache:
    """An empty cache: `k` and `v`, zeros of shape (L, B, S, K, H); or `latent`, (L, B, S, R); of a
    recurrent network, its states."""
    if isinstance(config, RecurrentConfig):
        return zero_state(config.cell, config.num_layers, B, config.d_model)
    slots = (config.num_layers, B, S)
    if config.latent is not None:
        width = config.latent.kv_rank + config.latent.rope_dim
        return {"latent": jnp.zeros((*slots, width), dtype)}
    shape = (*slots, config.num_kv_heads, config.head_dim)
    return {"k": jnp.zeros(shape, dtype), "v": jnp.zeros(shape, dtype)}


def _kept(k: jax.Array, v: jax.Array, latent: Latent | None) -> dict[str, jax.Array]:
    """What the cache keeps of new positions, by the names of `empty_cache`."""
    return {"k": k, "v": v} if latent is None else {"latent": latent.rows_BTR}


def prefill_attend(
    config: Any,
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

    def attend(
        q_BTNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKV: jax.Array,
        mask: Mask,
        cache: Cache,
        sinks_N: jax.Array | None = None,
        latent: Latent | None = None,
    ) -> tuple[jax.Array, Cache]:
        causal = packed_attend(config, Context(compute), jnp.ones((B, T), jnp.int32))
        rotated_BTKH = _rotated(k_BTKH, config, mask, last_B)
        out_BTNV, _ = causal(q_BTNH, rotated_BTKH, v_BTKV, mask, None, sinks_N)
        new = _kept(k_BTKH, v_BTKV, latent)
        return out_BTNV, {name: cache[name].at[:, :T].set(new[name]) for name in new}

    return attend


def decode_attend(config: Any, position_B: jax.Array) -> Attend:
    """Attention of one query per row, at `position_B`, over the slots up to its own.

    Latents are not expanded: queries that have absorbed the expansion of keys attend to them as to
    one shared key and value, and only their mean is expanded (DeepSeek-V2, §2.1.2).
    """
    rows = jnp.arange(position_B.shape[0])

    def attend(
        q_B1NH: jax.Array,
        k_B1KH: jax.Array,
        v_B1KV: jax.Array,
        mask: Mask,
        cache: Cache,
        sinks_N: jax.Array | None = None,
        latent: Latent | None = None,
    ) -> tuple[jax.Array, Cache]:
        new = _kept(k_B1KH, v_B1KV, latent)
        cache = {name: cache[name].at[rows, position_B].set(new[name][:, 0]) for name in new}
        slots = jax.tree.leaves(cache)[0].shape[1]
        distance_B1S = (position_B[:, None] - jnp.arange(slots))[:, None]
        rule = scores(config)
        far = None if rule.slopes is None else distance_B1S
        how = (mask.sees(distance_B1S), rule, sinks_N, far)
        if latent is None:
            rotated_BSKH = _rotated(cache["k"], config, mask, position_B)
            return reference_attention(q_B1NH, rotated_BSKH, cache["v"], *how), cache
        k_BS1R = cache["latent"][:, :, None]
        mean_B1NR = reference_attention(
            latent.absorb(q_B1NH), k_BS1R, k_BS1R[..., : latent.width], *how
        )
        return latent.expand(mean_B1NR), cache

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
