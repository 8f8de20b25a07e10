"""The arrays that the engine's programs take and return.

Shape letters as in `cache.py`, and S: slots, n: steps of one call, K: ids that may end a text, A:
most likely tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.infer.engine.request import MOST_STOPS, MOST_TOP
from llm_jax.infer.row_sampling import RowSampling

STEPS = 16
"""Most steps of decoding in one call."""


class Memory(NamedTuple):
    """Bytes on all devices together, with those of a draft model."""

    parameters: int
    cache: int


def bytes_of(arrays: Any) -> int:
    """Of all arrays of a tree, on all devices together; a copy counts once."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))


class Decoding(NamedTuple):
    """The rows of a decoding step; row r is slot r.

    Attributes:
      token_S: last token of each text, not yet in the cache.
      position_S: its position.
      left_S: tokens still to be made; 0: the slot rests.
      made_S: new tokens so far.
      seed_S: uint32.
      sampling: settings of each row.
      stop_SK: ids that `min_tokens` keeps back, filled up with -1.
    """

    token_S: Any
    position_S: Any
    left_S: Any
    made_S: Any
    seed_S: Any
    sampling: RowSampling
    stop_SK: Any


class Shaping(NamedTuple):
    """What penalties, biases and constraints take, for the kind `shaped`: (S, V) each, but `n`."""

    counts_SV: Any
    bias_SV: Any
    allowed_SV: Any


class Made(NamedTuple):
    """What steps of decoding return.

    Attributes:
      token_Sn: of each step; what comes after a row's last is to be ignored.
      finite_Sn: whether the largest logit was a finite number.
      log_prob_Sn, top_id_SnA, top_log_prob_SnA: see `TokenOut`; zeros unless asked for.
    """

    token_Sn: Any
    finite_Sn: Any
    log_prob_Sn: Any
    top_id_SnA: Any
    top_log_prob_SnA: Any


def nothing_made(S: int, n: int) -> Made:
    """Room for `n` tokens of each row."""
    return Made(
        jnp.zeros((S, n), jnp.int32),
        jnp.ones((S, n), bool),
        jnp.zeros((S, n), jnp.float32),
        jnp.zeros((S, n, MOST_TOP), jnp.int32),
        jnp.zeros((S, n, MOST_TOP), jnp.float32),
    )


class Scores(NamedTuple):
    """Log-probabilities of the token after each one of a piece; shapes (R, T) and (R, T, A)."""

    log_prob_RT: Any
    top_id_RTA: Any
    top_log_prob_RTA: Any


def token_log_probs(logits: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probability of each token, and the ids and log-probabilities of the most likely.

    Args:
      logits: (…, V); `token`: (…).
    """
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    count = min(MOST_TOP, logits.shape[-1])
    top, ids = jax.lax.top_k(log_probs, count)
    own = jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]
    pad = [(0, 0)] * (ids.ndim - 1) + [(0, MOST_TOP - count)]
    return own, jnp.pad(ids.astype(jnp.int32), pad), jnp.pad(top, pad)


def no_stops(slots: int) -> np.ndarray:
    """`Decoding.stop_SK` of rows that keep back nothing."""
    return np.full((slots, MOST_STOPS), -1, np.int32)
