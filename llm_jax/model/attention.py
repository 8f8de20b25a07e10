"""Causal attention within the documents of packed sequences.

Legend: B batch, T query length, S key length, N query heads, K key/value heads, G = N/K query heads
per key/value head, H head size. The query at row t sees the key at row s if s <= t and both are in
the same document. With a sliding window W, t - s < W must hold too.

`reference_attention` computes all scores, and JAX differentiates it. `blockwise_attention` loops
over blocks of query rows and skips the keys that no row of the block can see. Its backward pass
recomputes the scores of one block at a time (FlashAttention, Dao et al. 2022, algorithm 4), so no
array of T x S scores is kept.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

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
    """Scaled dot-product attention with all T x S scores; softmax in float32.

    Args:
      q_BTNH, k_BSKH, v_BSKH: queries, keys and values in one dtype; K divides N.
      mask_BTS: bool, True where a query may see a key; B may be 1.
      scale: factor on q·k.
      softcap: scores become softcap·tanh(scores/softcap) (Gemma 2, §2).

    Returns:
      (B, T, N, H) in the dtype of `q_BTNH`.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    scores_BKGTS = jnp.einsum(
        "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
    )
    scores_BKGTS = _capped(scores_BKGTS * scale, softcap)
    scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS, MASKED)
    probs_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
    out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", probs_BKGTS, v_BSKH)
    return out_BTKGH.reshape(B, T, N, H)


def causal_mask(
    segments_BT: jax.Array, queries: slice, keys: slice, window: int | None
) -> jax.Array:
    """Which keys each query may see: bool, (B, T, S), for the rows `queries` and the rows `keys`.

    Args:
      segments_BT: int32, the document of each row of the packed sequences.
      window: number of keys that a query sees, including its own row; None: no limit.
    """
    t = jnp.arange(queries.start, queries.stop)[:, None]
    s = jnp.arange(keys.start, keys.stop)[None, :]
    mask_TS = s <= t
    if window is not None:
        mask_TS &= t - s < window
    return mask_TS & (segments_BT[:, queries, None] == segments_BT[:, None, keys])


class Shape(NamedTuple):
    """The static settings of attention."""

    scale: float
    """Factor on q·k."""
    softcap: float | None
    """Scores become softcap·tanh(scores/softcap); None: no soft-cap."""
    window: int | None
    """Number of keys that a query sees, including its own row; None: no limit."""
    block: int
    """Query rows per block."""


def block_size(T: int) -> int:
    """Query rows per block: a multiple of 128, the smallest with at most 32 blocks."""
    return max(128, -(-T // 32 // 128) * 128)


def blockwise_attention(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segments_BT: jax.Array, shape: Shape
) -> jax.Array:
    """Causal attention within documents, in blocks; (B, T, N, H) in the dtype of `q_BTNH`.

    Args:
      segments_BT: int32, the document of each row.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BTKH.shape[2]
    q_BKGTH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    k_BKTH, v_BKTH = k_BTKH.swapaxes(1, 2), v_BTKH.swapaxes(1, 2)
    out_BKGTH = _blocks(q_BKGTH, k_BKTH, v_BKTH, segments_BT, shape)
    return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _blocks(q_BKGTH, k_BKTH, v_BKTH, segments_BT, shape):
    return _blocks_fwd(q_BKGTH, k_BKTH, v_BKTH, segments_BT, shape)[0]


def _blocks_fwd(q_BKGTH, k_BKTH, v_BKTH, segments_BT, shape):
    B, K, G, T, H = q_BKGTH.shape
    outs, log_zs = [], []
    for rows, keys in _spans(T, shape):
        q_BKtH = q_BKGTH[:, :, :, rows].reshape(B, K, -1, H)
        scores_BKtS, _ = _scores(q_BKtH, k_BKTH[:, :, keys], segments_BT, rows, keys, shape)
        top_BKt = jnp.max(scores_BKtS, axis=-1)
        weights_BKtS = jnp.exp(scores_BKtS - top_BKt[..., None])
        z_BKt = jnp.sum(weights_BKtS, axis=-1)
        out_BKtH = _dot(weights_BKtS.astype(v_BKTH.dtype), v_BKTH[:, :, keys], 3, 2)
        outs.append((out_BKtH / z_BKt[..., None]).astype(q_BKGTH.dtype).reshape(B, K, G, -1, H))
        log_zs.append(top_BKt + jnp.log(z_BKt))
    out_BKGTH = jnp.concatenate(outs, axis=3)
    return out_BKGTH, (q_BKGTH, k_BKTH, v_BKTH, segments_BT, out_BKGTH, log_zs)


def _blocks_bwd(shape, saved, dout_BKGTH):
    q_BKGTH, k_BKTH, v_BKTH, segments_BT, out_BKGTH, log_zs = saved
    B, K, G, T, H = q_BKGTH.shape
    dtype = q_BKGTH.dtype
    dk_BKTH = jnp.zeros(k_BKTH.shape, jnp.float32)
    dv_BKTH = jnp.zeros(v_BKTH.shape, jnp.float32)
    dqs = []
    for (rows, keys), log_z_BKt in zip(_spans(T, shape), log_zs, strict=True):
        q_BKtH, out_BKtH, dout_BKtH = (
            x[:, :, :, rows].reshape(B, K, -1, H) for x in (q_BKGTH, out_BKGTH, dout_BKGTH)
        )
        k_BKSH, v_BKSH = k_BKTH[:, :, keys], v_BKTH[:, :, keys]
        scores_BKtS, slope = _scores(q_BKtH, k_BKSH, segments_BT, rows, keys, shape)
        probs_BKtS = jnp.exp(scores_BKtS - log_z_BKt[..., None])
        dprobs_BKtS = _dot(dout_BKtH, v_BKSH, 3, 3)
        delta_BKt = jnp.sum(dout_BKtH.astype(jnp.float32) * out_BKtH, axis=-1)
        dscores_BKtS = probs_BKtS * (dprobs_BKtS - delta_BKt[..., None]) * slope
        dscores_BKtS = dscores_BKtS.astype(dtype)
        dqs.append(_dot(dscores_BKtS, k_BKSH, 3, 2).astype(dtype).reshape(B, K, G, -1, H))
        dk_BKTH = dk_BKTH.at[:, :, keys].add(_dot(dscores_BKtS, q_BKtH, 2, 2))
        dv_BKTH = dv_BKTH.at[:, :, keys].add(_dot(probs_BKtS.astype(dtype), dout_BKtH, 2, 2))
    dq_BKGTH = jnp.concatenate(dqs, axis=3)
    return dq_BKGTH, dk_BKTH.astype(dtype), dv_BKTH.astype(dtype), None


_blocks.defvjp(_blocks_fwd, _blocks_bwd)


def _spans(T: int, shape: Shape) -> list[tuple[slice, slice]]:
    """For each block: its query rows, and the key rows that at least one of them can see."""
    spans = []
    for start in range(0, T, shape.block):
        stop = min(start + shape.block, T)
        first = 0 if shape.window is None else max(0, start - shape.window + 1)
        spans.append((slice(start, stop), slice(first, stop)))
    return spans


def _scores(q_BKtH, k_BKSH, segments_BT, rows, keys, shape):
    """Masked float32 scores of the G·t query rows of a block, and d(score)/d(q·k)."""
    rows_of_all_groups = q_BKtH.shape[2]
    scores_BKtS = _capped(_dot(q_BKtH, k_BKSH, 3, 3) * shape.scale, shape.softcap)
    slope = jnp.asarray(shape.scale, jnp.float32)
    if shape.softcap is not None:
        slope = slope * (1 - (scores_BKtS / shape.softcap) ** 2)
    mask_BtS = causal_mask(segments_BT, rows, keys, shape.window)
    mask_BtS = jnp.tile(mask_BtS, (1, rows_of_all_groups // mask_BtS.shape[1], 1))
    return jnp.where(mask_BtS[:, None], scores_BKtS, MASKED), slope


def _dot(a, b, over_a: int, over_b: int):
    """Product of `a` and `b` over axis `over_a` and axis `over_b`, batched over the first two axes.

    The result is float32. `dot_general` keeps the axes in memory order. `einsum` and JAX's own
    transposition rule give the same numbers, but make XLA on CPU transpose the scores in memory.
    """
    axes = (((over_a,), (over_b,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _capped(scores, softcap: float | None):
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)
