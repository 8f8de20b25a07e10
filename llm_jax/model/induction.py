"""A start for attention from which small models learn to copy early.

To copy what followed an earlier occurrence takes two heads, one on the previous token and one on
its like (induction heads, Olsson et al. 2022), and neither helps without the other: from random
matrices, models of half a million parameters find the pair after two or three million tokens, or
not at all (docs/log.md). They start with both here. That trained attention can be imitated at the
start, queries like keys, is mimetic initialization (Trockman & Kolter 2023); the previous token is
found by biases that RoPE turns to a score of the distance alone.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from llm_jax.config import ModelConfig
from llm_jax.model.rope import inverse_frequencies

LIKENESS = 0.9
"""Correlation of a head's key matrix with its query matrix."""
PAIRS, STRENGTH = 6, 4.0
"""How many of the fastest pairs of RoPE the biases of the previous-token head fill, and with what.
The matrices make entries of about 0.6 at a width below 1,000."""

Params = dict[str, Any]


def like_keys(attn: Params, config: ModelConfig) -> Params:
    """The stacked attention `attn` with k (L, D, K, H) made of q (L, D, N, H) and noise."""
    q_LDKH = attn["q"][:, :, :: config.num_heads // config.num_kv_heads]
    noise = math.sqrt(1 - LIKENESS**2)
    return attn | {"k": LIKENESS * q_LDKH + noise * attn["k"]}


def previous_token_head(attn: Params, config: ModelConfig) -> Params:
    """`attn` whose first layer's first head scores keys by how near they are to one token back.

    A query bias b and a key bias that is b turned by one position make, whatever the tokens,
    Σ b²·cos((d − 1)·θ) at a distance of d: greatest at d = 1.
    """
    half = config.head_dim // 2
    turn = inverse_frequencies(config)[0][:PAIRS]
    query, key = np.zeros((2, 2, half), np.float32)
    query[0, : len(turn)] = STRENGTH
    key[:, : len(turn)] = STRENGTH * np.stack([np.cos(turn), np.sin(turn)])
    return attn | {
        "q_bias": attn["q_bias"].at[0, 0].set(jnp.asarray(query.ravel())),
        "k_bias": attn["k_bias"].at[0, 0].set(jnp.asarray(key.ravel())),
    }
