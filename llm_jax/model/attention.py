"""Attention over q_BTNH, k_BSKH, v_BSKH: one plain reference and one blockwise path.

Legend: B batch, T query length, S key length, N query heads, K key/value heads, G = N/K query heads
per key/value head, H head size. A query at row t sees key row s if s <= t, if both lie in the same
document, and, under a sliding window W, if t - s < W.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

MASKED = -(2.0**30)  # finite, so that a fully masked row gives a mean and not NaN


def reference_attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask_BTS: jax.Array,
    *,
    scale: float,
    softcap: float | None = None,
) -> jax.Array:
    """Scaled dot-product attention with all T×S scores; softmax in float32.

    Args:
      mask_BTS: True where a query may see a key; B may be 1.
      scale: factor on q·k.
      softcap: scores become softcap·tanh(scores/softcap) (Gemma 2, §2).

    Returns:
      (B, T, N, H) in the dtype of `q_BTNH`.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) * jnp.asarray(scale, q_BTNH.dtype)
    scores_BKGTS = jnp.einsum(
        "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
    )
    if softcap is not None:
        scores_BKGTS = softcap * jnp.tanh(scores_BKGTS / softcap)
    scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS, MASKED)
    probs_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
    out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", probs_BKGTS, v_BSKH)
    return out_BTKGH.reshape(B, T, N, H)


def causal_mask(
    segments_BT: jax.Array, queries: slice, keys: slice, window: int | None
) -> jax.Array:
    """mask_BTS of the rows `queries` against the rows `keys` of one packed sequence."""
    t = jnp.arange(queries.start, queries.stop)[:, None]
    s = jnp.arange(keys.start, keys.stop)[None, :]
    mask_TS = s <= t
    if window is not None:
        mask_TS &= t - s < window
    return mask_TS & (segments_BT[:, queries, None] == segments_BT[:, None, keys])


def blockwise_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    *,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    block: int,
) -> jax.Array:
    """Causal attention one block of query rows at a time, keys outside its reach left out.

    Half of the T² scores are never computed, and under a sliding window all but T·(W + block).
    """
    T = q_BTNH.shape[1]
    outs = []
    for start in range(0, T, block):
        rows = slice(start, min(start + block, T))
        first = 0 if window is None else max(0, start - window + 1)
        keys = slice(first, rows.stop)
        mask_BTS = causal_mask(segments_BT, rows, keys, window)
        outs.append(
            reference_attention(
                q_BTNH[:, rows],
                k_BTKH[:, keys],
                v_BTKH[:, keys],
                mask_BTS,
                scale=scale,
                softcap=softcap,
            )
        )
    return jnp.concatenate(outs, axis=1)


def block_size(T: int) -> int:
    """Query rows per block: 128, or more where that would write out over 32 blocks."""
    return max(128, -(-T // 32 // 128) * 128)
