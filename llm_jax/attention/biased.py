"""Attention whose scores have a learned bias by distance (T5, Raffel et al. 2020, §2.1)."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.attention.mask import MASKED


@functools.cache
def _by_distance(buckets: int, max_distance: int) -> np.ndarray:
    """(max_distance + 1,) int32: the bucket of each distance in one direction.

    Half of the buckets are for single distances, the others for logarithmically larger ranges.
    """
    exact = buckets // 2
    distance = np.arange(max_distance + 1)
    # In float32, as T5 computes it: at the edges of buckets, the rounding decides.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    steps = ratio / np.float32(math.log(max_distance / exact)) * np.float32(buckets - exact)
    far = np.minimum(exact + steps.astype(np.int32), buckets - 1)
    return np.where(distance < exact, distance, far).astype(np.int32)


def relative_buckets(
    relative: jax.Array, *, causal: bool, buckets: int, max_distance: int
) -> jax.Array:
    """The bucket of each `relative` = key's position − query's position, int32.

    Args:
      causal: keys after the query are not seen. Otherwise they have half of the buckets.
    """
    side = buckets if causal else buckets // 2
    table = jnp.asarray(_by_distance(side, max_distance))
    back = jnp.minimum(relative, 0) if causal else relative
    found = table[jnp.minimum(jnp.abs(back), max_distance)]
    return found if causal else found + jnp.where(relative > 0, side, 0)


def biased_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias_NTS: jax.Array | None,
    seen_BTS: jax.Array,
) -> jax.Array:
    """Attention with all T x S scores, which are not scaled; softmax in float32.

    Args:
      bias_NTS: float32, added to the scores; None: nothing is.
      seen_BTS: bool, True where a query sees a key.

    Returns:
      (B, T, N, H) in the dtype of `q_BTNH`.
    """
    scores_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH, preferred_element_type=jnp.float32)
    if bias_NTS is not None:
        scores_BNTS += bias_NTS
    scores_BNTS = jnp.where(seen_BTS[:, None], scores_BNTS, MASKED)
    probs_BNTS = jax.nn.softmax(scores_BNTS, axis=-1).astype(v_BSNH.dtype)
    return jnp.einsum("BNTS,BSNH->BTNH", probs_BNTS, v_BSNH)
