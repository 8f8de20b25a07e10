"""Attention by all T x S scores, differentiated by JAX: what the others are compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from llm_jax.attention.mask import MASKED, Scores


def reference_attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKV: jax.Array,
    mask_BTS: jax.Array,
    scores: Scores,
    sinks_N: jax.Array | None = None,
    distance_BTS: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention with all T x S scores; softmax in float32.

    Args:
      q_BTNH, k_BSKH, v_BSKV: queries, keys and values in one dtype; K divides N.
      mask_BTS: bool, True where a query sees a key; B may be 1.
      sinks_N: float32 score of each head's sink, a key whose value is zero.
      distance_BTS: query's position − key's position; B may be 1. Needed if `scores` has `slopes`.

    Returns:
      (B, T, N, V) in the dtype of `q_BTNH`.
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
    if sinks_N is None:
        probs_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1)
    else:
        sinks_KG11 = sinks_N.reshape(K, N // K, 1, 1)
        sinks_BKGT1 = jnp.broadcast_to(sinks_KG11, (*scores_BKGTS.shape[:-1], 1))
        with_sinks = jnp.concatenate([scores_BKGTS, sinks_BKGT1], axis=-1)
        probs_BKGTS = jax.nn.softmax(with_sinks, axis=-1)[..., :-1]
    out_BTKGV = jnp.einsum("BKGTS,BSKV->BTKGV", probs_BKGTS.astype(v_BSKV.dtype), v_BSKV)
    return out_BTKGV.reshape(B, T, N, -1)
