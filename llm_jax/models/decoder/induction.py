"""Initial attention weights from which small models learn to copy within half a million tokens.

Copying what followed an earlier occurrence of a token takes two heads. One writes the previous
token at each position. A head in a later layer finds the positions where that is the present token
(induction heads, Olsson et al. 2022). Neither head helps without the other. From random matrices,
models of half a million parameters find the pair by chance, after two or three million tokens or
never (docs/log.md). Here they start with a rough version of it.

Initial weights that imitate trained ones are the idea of mimetic initialization (Trockman & Kolter
2023). All other heads follow it too: their key matrices are similar to their query matrices.
Attention is sharp here, so these heads first attend to their own token. Random heads would add the
values of random tokens.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from llm_jax.config import ModelConfig
from llm_jax.models.common.rope import inverse_frequencies

LIKENESS = 0.9
"""Correlation of a head's key matrix with its query matrix."""
PAIRS, STRENGTH = 3, 8.0
"""The biases of the previous-token head fill this many of RoPE's fastest pairs, with this value.
For comparison, the matrices give entries of about 0.6 at a width below 1,000."""
SHARPNESS = (3.0, 2.0)
"""Scale of the query norms in the first and the second layer."""
LOUDNESS = 2.0
"""Scale of the two heads' outputs, relative to the other heads."""

Params = dict[str, Any]


def induction_start(params: Params, config: ModelConfig) -> Params:
    """A decoder's parameters, with two heads changed into an induction head.

    Head 0 of layer 0 attends to the previous token. Head 0 of layer 1 gets its queries from the
    directions that head reads, and its keys from the directions that head writes. It writes its
    values back, so with tied embeddings it predicts the token that it attends to.
    """
    attn = params["blocks"]["attn"]
    q_LDNH, k_LDKH, v_LDKH, o_LNHD = (attn[name] for name in "qkvo")
    share = config.num_heads // config.num_kv_heads
    k_LDKH = LIKENESS * q_LDNH[:, :, ::share] + math.sqrt(1 - LIKENESS**2) * k_LDKH
    quiet = 1 / math.sqrt(2 * config.num_layers)  # of o, relative to q, k and v
    reads_DH, writes_HD = v_LDKH[0, :, 0], o_LNHD[0, 0]
    copies_HD = v_LDKH[1, :, 0].T * quiet
    query_bias, key_bias = _one_back(config)
    first, second = (sharpness - config.norm_plus_one for sharpness in SHARPNESS)
    scale_LH = attn["q_norm"]["scale"].at[0].set(first).at[1].set(second)
    attn = attn | {
        "q": q_LDNH.at[1, :, 0].set(reads_DH),
        "k": k_LDKH.at[1, :, 0].set(writes_HD.T / quiet),
        "o": o_LNHD.at[0, 0].set(LOUDNESS * writes_HD).at[1, 0].set(LOUDNESS * copies_HD),
        "q_bias": attn["q_bias"].at[0, 0].set(query_bias),
        "k_bias": attn["k_bias"].at[0, 0].set(key_bias),
        "q_norm": attn["q_norm"] | {"scale": scale_LH},
    }
    return params | {"blocks": params["blocks"] | {"attn": attn}}


def _one_back(config: ModelConfig) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Query and key biases, (H,) each. Their score is greatest for the previous token, always.

    The key bias is the query bias b, rotated by one position. With RoPE, their score at a distance
    of d is Σ b²·cos((d − 1)·θ).
    """
    turn = inverse_frequencies(config)[0][:PAIRS]
    query, key = np.zeros((2, 2, config.head_dim // 2), np.float32)
    query[0, : len(turn)] = STRENGTH
    key[:, : len(turn)] = STRENGTH * np.stack([np.cos(turn), np.sin(turn)])
    return jnp.asarray(query.ravel()), jnp.asarray(key.ravel())
