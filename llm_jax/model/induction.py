"""A start for attention from which small models learn to copy within half a million tokens.

To copy what followed an earlier occurrence takes two heads: one that writes the previous token, and
in a later layer one that finds its like there (induction heads, Olsson et al. 2022). Neither helps
without the other: from random matrices, models of half a million parameters find the pair after two
or three million tokens, or not at all, by chance (docs/log.md). They start with it here, roughly.

That what is trained can be imitated at the start is from mimetic initialization (Trockman & Kolter
2023), as are keys like queries, for all other heads: sharp as attention is here, they look at their
own token first, where random ones would add what random tokens say.
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
PAIRS, STRENGTH = 3, 8.0
"""How many of RoPE's fastest pairs the biases of the previous-token head fill, and with what; the
matrices make entries of about 0.6 at a width below 1,000."""
SHARPNESS = (3.0, 2.0)
"""Scale of the query norms of the first and the second layer."""
LOUDNESS = 2.0
"""Of what the two heads write, relative to the others."""

Params = dict[str, Any]


def induction_start(attn: Params, config: ModelConfig) -> Params:
    """The stacked attention of `Attention`, leading axis L, started as an induction head.

    Head 0 of layer 0 attends to the previous token. Head 0 of layer 1 has for queries what that
    head reads of a token, for keys what it has written, and writes its values back: with tied
    embeddings, it predicts the token that it attends to.
    """
    q_LDNH, k_LDKH, v_LDKH, o_LNHD = (attn[name] for name in "qkvo")
    share = config.num_heads // config.num_kv_heads
    k_LDKH = LIKENESS * q_LDNH[:, :, ::share] + math.sqrt(1 - LIKENESS**2) * k_LDKH
    quiet = 1 / math.sqrt(2 * config.num_layers)  # of o, relative to q, k and v
    reads_DH, writes_HD = v_LDKH[0, :, 0], o_LNHD[0, 0]
    copies_HD = v_LDKH[1, :, 0].T * quiet
    query_bias, key_bias = _one_back(config)
    first, second = (sharpness - config.norm_plus_one for sharpness in SHARPNESS)
    scale_LH = attn["q_norm"]["scale"].at[0].set(first).at[1].set(second)
    return attn | {
        "q": q_LDNH.at[1, :, 0].set(reads_DH),
        "k": k_LDKH.at[1, :, 0].set(writes_HD.T / quiet),
        "o": o_LNHD.at[0, 0].set(LOUDNESS * writes_HD).at[1, 0].set(LOUDNESS * copies_HD),
        "q_bias": attn["q_bias"].at[0, 0].set(query_bias),
        "k_bias": attn["k_bias"].at[0, 0].set(key_bias),
        "q_norm": attn["q_norm"] | {"scale": scale_LH},
    }


def _one_back(config: ModelConfig) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Biases, (H,) each, whose score is greatest for the previous token, whatever the tokens.

    RoPE turns a query bias b, and a key bias that is b turned by one position, to a score of
    Σ b²·cos((d − 1)·θ) at a distance of d.
    """
    turn = inverse_frequencies(config)[0][:PAIRS]
    query, key = np.zeros((2, 2, config.head_dim // 2), np.float32)
    query[0, : len(turn)] = STRENGTH
    key[:, : len(turn)] = STRENGTH * np.stack([np.cos(turn), np.sin(turn)])
    return jnp.asarray(query.ravel()), jnp.asarray(key.ravel())
