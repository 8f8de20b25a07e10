"""Attention by all T x S scores, differentiated by JAX: what the others are compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from llm_jax.attention.mask import MASKED, Scores


def reference_attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask_BTS: jax.Array,
    scores: Scores,
    distance_BTS: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention with all T x S scores; softmax in float32.

    Args:
      q_BTNH, k_BSKH, v_BSKH: queries, keys and values in one dtype; K divides N.
      mask_BTS: bool, True where a query sees a key; B may be 1.
      distance_BTS: query's position − key's position; B may be 1. Needed if `scores` has `slopes`.

    Returns:
      (B, T, N, H) in the dtype of `q_BTNH`.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    scores_BKGTS = scores.of(
        jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32)
    )
    if distance_BTS is not None:
        scores_BKGTS -= scores.fall(distance_BTS, K)
    scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS, MASKED)
    probs_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
    out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", probs_BKGTS, v_BSKH)
    return out_BTKGH.reshape(B, T, N, H)
