"""Attention in blocks of query rows: no array of T x S scores is kept.

It skips the keys that no row of a block can see. The backward pass recomputes the scores of one
block at a time (FlashAttention, Dao et al. 2022, algorithm 4).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from llm_jax.attention.mask import MASKED, Mask, Scores, visible


def block_size(T: int) -> int:
    """Query rows per block: a multiple of 128, the smallest with at most 32 blocks."""
    return max(128, -(-T // 32 // 128) * 128)


def blockwise_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKV: jax.Array,
    segments_BT: jax.Array,
    mask: Mask,
    scores: Scores,
    sinks_N: jax.Array | None = None,
    block: int | None = None,
) -> jax.Array:
    """Attention within documents, in blocks; (B, T, N, V) in the dtype of `q_BTNH`.

    Args:
      segments_BT: int32, the document of each row.
      sinks_N: float32 score of each head's sink, a key whose value is zero.
      block: query rows per block; by default `block_size`.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BTKH.shape[2]
    q_BKGTH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    k_BKTH, v_BKTV = k_BTKH.swapaxes(1, 2), v_BTKV.swapaxes(1, 2)
    sinks_KG = None if sinks_N is None else sinks_N.reshape(K, N // K)
    rule = (mask, scores, block or block_size(T))
    out_BKGTV = _blocks(q_BKGTH, k_BKTH, v_BKTV, segments_BT, sinks_KG, rule)
    return out_BKGTV.transpose(0, 3, 1, 2, 4).reshape(B, T, N, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _blocks(q_BKGTH, k_BKTH, v_BKTV, segments_BT, sinks_KG, rule):
    return _blocks_fwd(q_BKGTH, k_BKTH, v_BKTV, segments_BT, sinks_KG, rule)[0]


def _blocks_fwd(q_BKGTH, k_BKTH, v_BKTV, segments_BT, sinks_KG, rule):
    B, K, G, T, H = q_BKGTH.shape
    outs, log_zs = [], []
    for rows, keys in _spans(T, rule):
        q_BKtH = q_BKGTH[:, :, :, rows].reshape(B, K, -1, H)
        scores_BKtS, _ = _scores(q_BKtH, k_BKTH[:, :, keys], segments_BT, rows, keys, rule)
        top_BKt = jnp.max(scores_BKtS, axis=-1)
        if sinks_KG is not None:
            sinks_Kt = _sinks_of_rows(sinks_KG, rows)
            top_BKt = jnp.maximum(top_BKt, sinks_Kt)
        weights_BKtS = jnp.exp(scores_BKtS - top_BKt[..., None])
        z_BKt = jnp.sum(weights_BKtS, axis=-1)
        if sinks_KG is not None:
            z_BKt += jnp.exp(sinks_Kt - top_BKt)
        out_BKtV = _dot(weights_BKtS.astype(v_BKTV.dtype), v_BKTV[:, :, keys], 3, 2)
        V = out_BKtV.shape[-1]
        outs.append((out_BKtV / z_BKt[..., None]).astype(q_BKGTH.dtype).reshape(B, K, G, -1, V))
        log_zs.append(top_BKt + jnp.log(z_BKt))
    out_BKGTV = jnp.concatenate(outs, axis=3)
    return out_BKGTV, (q_BKGTH, k_BKTH, v_BKTV, segments_BT, sinks_KG, out_BKGTV, log_zs)


def _sinks_of_rows(sinks_KG, rows: slice):
    """(K, G·t): the sink of each of a block's rows."""
    return jnp.repeat(sinks_KG, rows.stop - rows.start, axis=1)


def _blocks_bwd(rule, saved, dout_BKGTV):
    q_BKGTH, k_BKTH, v_BKTV, segments_BT, sinks_KG, out_BKGTV, log_zs = saved
    B, K, G, T, H = q_BKGTH.shape
    dtype = q_BKGTH.dtype
    dk_BKTH = jnp.zeros(k_BKTH.shape, jnp.float32)
    dv_BKTV = jnp.zeros(v_BKTV.shape, jnp.float32)
    dqs, dsinks = [], []
    for (rows, keys), log_z_BKt in zip(_spans(T, rule), log_zs, strict=True):
        q_BKtH, out_BKtV, dout_BKtV = (
            x[:, :, :, rows].reshape(B, K, -1, x.shape[-1])
            for x in (q_BKGTH, out_BKGTV, dout_BKGTV)
        )
        k_BKSH, v_BKSV = k_BKTH[:, :, keys], v_BKTV[:, :, keys]
        scores_BKtS, slope = _scores(q_BKtH, k_BKSH, segments_BT, rows, keys, rule)
        probs_BKtS = jnp.exp(scores_BKtS - log_z_BKt[..., None])
        dprobs_BKtS = _dot(dout_BKtV, v_BKSV, 3, 3)
        delta_BKt = jnp.sum(dout_BKtV.astype(jnp.float32) * out_BKtV, axis=-1)
        if sinks_KG is not None:  # of the sink's probability p, whose value is zero: -p·delta
            lost_BKt = jnp.exp(_sinks_of_rows(sinks_KG, rows) - log_z_BKt) * delta_BKt
            dsinks.append(-jnp.sum(lost_BKt.reshape(B, K, G, -1), axis=(0, 3)))
        dscores_BKtS = probs_BKtS * (dprobs_BKtS - delta_BKt[..., None]) * slope
        dscores_BKtS = dscores_BKtS.astype(dtype)
        dqs.append(_dot(dscores_BKtS, k_BKSH, 3, 2).astype(dtype).reshape(B, K, G, -1, H))
        dk_BKTH = dk_BKTH.at[:, :, keys].add(_dot(dscores_BKtS, q_BKtH, 2, 2))
        dv_BKTV = dv_BKTV.at[:, :, keys].add(_dot(probs_BKtS.astype(dtype), dout_BKtV, 2, 2))
    dq_BKGTH = jnp.concatenate(dqs, axis=3)
    dsinks_KG = sum(dsinks) if dsinks else None
    return dq_BKGTH, dk_BKTH.astype(dtype), dv_BKTV.astype(dtype), None, dsinks_KG


_blocks.defvjp(_blocks_fwd, _blocks_bwd)


def _spans(T: int, rule: tuple[Mask, Scores, int]) -> list[tuple[slice, slice]]:
    """For each block: its query rows, and the key rows that at least one of them can see."""
    mask, _, block = rule
    blocks = [slice(start, min(start + block, T)) for start in range(0, T, block)]
    return [(rows, mask.keys(rows, T)) for rows in blocks]


def _scores(q_BKtH, k_BKSH, segments_BT, rows, keys, rule):
    """Masked float32 scores of the G·t query rows of a block, and d(score)/d(q·k)."""
    mask, how, _ = rule
    K, rows_of_all_groups = q_BKtH.shape[1:3]
    scores_BKtS = how.of(_dot(q_BKtH, k_BKSH, 3, 3))
    slope = how.slope(scores_BKtS)
    if how.slopes is not None:
        t, s = (jnp.arange(part.start, part.stop) for part in (rows, keys))
        scores_BKtS -= how.fall(t[:, None] - s, K).reshape(K, rows_of_all_groups, -1)
    mask_BtS = visible(mask, segments_BT, rows, keys)
    mask_BtS = jnp.tile(mask_BtS, (1, rows_of_all_groups // mask_BtS.shape[1], 1))
    return jnp.where(mask_BtS[:, None], scores_BKtS, MASKED), slope


def _dot(a, b, over_a: int, over_b: int):
    """Product of `a` and `b` over axis `over_a` and axis `over_b`, batched over the first two axes.

    The result is float32. `dot_general` keeps the axes in memory order. `einsum` and JAX's own
    transposition rule give the same numbers, but make XLA on CPU transpose the scores in memory.
    """
    axes = (((over_a,), (over_b,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)
