"""Context parallelism: attention over sequences whose length is split over `context`.

A sequence is cut into 2c chunks for c devices. Device i holds chunks i and 2c-1-i ("zigzag"). With
the causal mask, each device then does the same work for the keys of each other device: two pairs of
chunks, or three for its own keys. Queries do not move. Keys and values either move around the ring,
to the next device at each step (Ring Attention, Liu et al. 2023; balanced: Brandon et al. 2023,
Llama 3), or are gathered at once (Llama 3, Grattafiori et al. 2024 §3.3.2). Both methods add the
keys of one device after another to an online softmax (Milakov & Gimelshein 2018), and recompute the
scores in the backward pass. An attention sink is where the softmax begins.

Legend: c devices, t rows of a chunk, R blocks of r query rows (2·t = R·r), S keys of a chunk,
K key/value heads, G query heads per key/value head, V size of a value.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.attention.mask import MASKED, Mask, Scores
from llm_jax.parallel.mesh import axis_shards, spec

ROWS = 512
"""Most query rows whose scores exist at one time."""
AXIS = "context"


class _Rule(NamedTuple):
    """The static settings of attention over split sequences."""

    mask: Mask
    scores: Scores
    kind: Literal["ring", "gather"]
    """How devices get the keys and values of the others."""


def zigzag(seq_len: int, shards: int) -> np.ndarray:
    """Position in the text of each row, (T,) int, when device i of `shards` holds the i-th part."""
    chunks = np.arange(seq_len).reshape(2 * shards, -1)
    order = [chunk for i in range(shards) for chunk in (i, 2 * shards - 1 - i)]
    return chunks[order].reshape(-1)


def split_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKV: jax.Array,
    segments_BT: jax.Array,
    mask: Mask,
    scores: Scores,
    sinks_N: jax.Array | None = None,
    *,
    kind: Literal["ring", "gather"],
) -> jax.Array:
    """Attention within documents, over sequences in `zigzag` order.

    Args:
      segments_BT: int32, the document of each row.
      sinks_N: float32 score of each head's sink, a key whose value is zero.
      kind: how devices get the keys and values of the others.

    Returns:
      (B, T, N, V) in the dtype of `q_BTNH`.
    """
    return jax.shard_map(
        functools.partial(_local, rule=_Rule(mask, scores, kind)),
        in_specs=(
            spec(("batch", "length", "heads", None)),
            spec(("batch", "length", "kv_heads", None)),
            spec(("batch", "length", "kv_heads", None)),
            spec(("batch", "length")),
            None if sinks_N is None else spec(("heads",)),
        ),
        out_specs=spec(("batch", "length", "heads", None)),
        check_vma=False,
    )(q_BTNH, k_BTKH, v_BTKV, segments_BT, sinks_N)


def _local(q_BTNH, k_BTKH, v_BTKV, segments_BT, sinks_N, *, rule: _Rule):
    B, T, N, H = q_BTNH.shape
    K, t = k_BTKH.shape[2], T // 2
    r = next(size for size in range(min(t, ROWS), 0, -1) if t % size == 0)
    q_RBKGrH = q_BTNH.reshape(B, T // r, r, K, N // K, H).transpose(1, 0, 3, 4, 2, 5)
    k_2BKSH, v_2BKSV = (
        x.reshape(B, 2, t, K, -1).transpose(1, 0, 3, 2, 4) for x in (k_BTKH, v_BTKV)
    )
    seg_RBr = segments_BT.reshape(B, T // r, r).swapaxes(0, 1)
    seg_2BS = segments_BT.reshape(B, 2, t).swapaxes(0, 1)
    sinks_KG = None if sinks_N is None else sinks_N.reshape(K, N // K)
    out_RBKGrV = _attend(q_RBKGrH, seg_RBr, (k_2BKSH, v_2BKSV, seg_2BS), sinks_KG, rule)
    return out_RBKGrV.transpose(1, 0, 4, 2, 3, 5).reshape(B, T, N, -1)


def _starts(device, count: int):
    """Position in the text of the first row of each of a device's `count` equal pieces."""
    c = axis_shards(AXIS)
    piece = jnp.arange(count)
    half = count // 2
    return jnp.where(piece < half, device * half + piece, (2 * c - 2 - device) * half + piece)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q_RBKGrH, seg_RBr, own, sinks_KG, rule):
    return _forward(q_RBKGrH, seg_RBr, own, sinks_KG, rule)[0]


def _forward(q_RBKGrH, seg_RBr, own, sinks_KG, rule):
    me = jax.lax.axis_index(AXIS)
    R, r = q_RBKGrH.shape[0], q_RBKGrH.shape[4]
    row_R = _starts(me, R) * r

    def visit(state: Any, source: Any, device: Any) -> Any:
        def rows(_: None, xs: Any) -> Any:
            q, seg, row, out, log_z = xs
            for k, v, seg_k, key in _chunks(source, device):

                def fold(out, log_z, q=q, seg=seg, row=row, k=k, v=v, seg_k=seg_k, key=key):
                    scores, _ = _scores(q, k, seg, seg_k, row, key, rule)
                    new = jnp.logaddexp(log_z, jax.nn.logsumexp(scores, axis=-1))
                    probs = jnp.exp(scores - new[..., None])
                    add = jnp.einsum("BKGrS,BKSV->BKGrV", probs.astype(v.dtype), v)
                    return out * jnp.exp(log_z - new)[..., None] + add, new

                needed = _sees(row, r, key, k.shape[2], rule.mask)
                out, log_z = jax.lax.cond(needed, fold, lambda *state: state, out, log_z)
            return None, (out, log_z)

        return jax.lax.scan(rows, None, (q_RBKGrH, seg_RBr, row_R, *state))[1]

    rows_RBKGr, V = q_RBKGrH.shape[:-1], own[1].shape[-1]
    log_z = jnp.full(rows_RBKGr, MASKED)
    if sinks_KG is not None:  # the softmax begins with the sink, whose value is zero
        log_z = jnp.broadcast_to(sinks_KG[..., None], rows_RBKGr)
    out, log_z = _over_sources(visit, (jnp.zeros((*rows_RBKGr, V), jnp.float32), log_z), own, rule)
    out = out.astype(q_RBKGrH.dtype)
    return out, (q_RBKGrH, seg_RBr, own, sinks_KG, out, log_z)


def _over_sources(visit, state, own, rule: _Rule):
    """`visit(state, source, device)` for the keys of every device; a ring begins with its own."""
    me, c = jax.lax.axis_index(AXIS), axis_shards(AXIS)
    if rule.kind == "gather":
        everything = jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS), own)

        def step(state, xs):
            return visit(state, *xs), None

        return jax.lax.scan(step, state, (everything, jnp.arange(c)))[0]

    def turn(carry, i):
        state, source = carry
        source = _pass_on(source)
        return (visit(state, source, (me - i) % c), source), None

    state = visit(state, own, me)
    return jax.lax.scan(turn, (state, own), jnp.arange(1, c))[0][0]


def _backward(rule, saved, dout_RBKGrV):
    q_RBKGrH, seg_RBr, own, sinks_KG, out_RBKGrV, log_z_RBKGr = saved
    me, c = jax.lax.axis_index(AXIS), axis_shards(AXIS)
    R, r = q_RBKGrH.shape[0], q_RBKGrH.shape[4]
    dtype = q_RBKGrH.dtype
    delta_RBKGr = jnp.sum(dout_RBKGrV.astype(jnp.float32) * out_RBKGrV, axis=-1)
    rows = (q_RBKGrH, seg_RBr, _starts(me, R) * r, dout_RBKGrV, delta_RBKGr, log_z_RBKGr)

    def visit(dq: Any, source: Any, dkv: Any, device: Any) -> Any:
        def one(dkv: Any, xs: Any) -> Any:
            q, seg, row, dout, delta, log_z, dq = xs
            found = []
            for (k, v, seg_k, key), (dk, dv) in zip(
                _chunks(source, device), zip(*dkv, strict=True), strict=True
            ):

                def pull(
                    dq, dk, dv, q=q, seg=seg, row=row, dout=dout, delta=delta, log_z=log_z,
                    k=k, v=v, seg_k=seg_k, key=key,
                ):  # fmt: skip
                    scores, slope = _scores(q, k, seg, seg_k, row, key, rule)
                    probs = jnp.exp(scores - log_z[..., None])
                    dprobs = _einsum("BKGrV,BKSV->BKGrS", dout, v)
                    dscores = (probs * (dprobs - delta[..., None]) * slope).astype(dtype)
                    dq += _einsum("BKGrS,BKSH->BKGrH", dscores, k)
                    dk += _einsum("BKGrS,BKGrH->BKSH", dscores, q)
                    dv += _einsum("BKGrS,BKGrV->BKSV", probs.astype(dtype), dout)
                    return dq, dk, dv

                needed = _sees(row, r, key, k.shape[2], rule.mask)
                dq, dk, dv = jax.lax.cond(needed, pull, lambda *state: state, dq, dk, dv)
                found.append((dk, dv))
            return tuple(jnp.stack(pair) for pair in zip(*found, strict=True)), dq

        dkv, dq = jax.lax.scan(one, dkv, (*rows, dq))
        return dq, dkv

    dq = jnp.zeros(q_RBKGrH.shape, jnp.float32)
    nothing = tuple(jnp.zeros(x.shape, jnp.float32) for x in own[:2])
    if rule.kind == "gather":
        everything = jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS), own)

        def step(dq, xs):
            return visit(dq, xs[0], nothing, xs[1])

        dq, dkv = jax.lax.scan(step, dq, (everything, jnp.arange(c)))
        dkv = jax.tree.map(
            lambda x: jax.lax.psum_scatter(x.reshape(-1, *x.shape[2:]), AXIS, tiled=True), dkv
        )
    else:

        def turn(carry, i):
            dq, source, dkv = carry
            source, dkv = _pass_on((source, dkv))
            dq, dkv = visit(dq, source, dkv, (me - i) % c)
            return (dq, source, dkv), None

        dq, dkv = visit(dq, own, nothing, me)
        (dq, _, dkv), _ = jax.lax.scan(turn, (dq, own, dkv), jnp.arange(1, c))
        dkv = _pass_on(dkv)  # gradients moved with their keys; this last step brings them home
    dk, dv = (x.astype(dtype) for x in dkv)
    dsinks_KG = None
    if sinks_KG is not None:  # of the sink's probability p, whose value is zero: -p·delta
        lost_RBKGr = jnp.exp(sinks_KG[..., None] - log_z_RBKGr) * delta_RBKGr
        dsinks_KG = -jnp.sum(lost_RBKGr, axis=(0, 1, 4))
    return dq.astype(dtype), None, (dk, dv, None), dsinks_KG


_attend.defvjp(_forward, _backward)


def _pass_on(tree):
    """Sends every leaf to the next device of the ring."""
    c = axis_shards(AXIS)
    ring = [(i, (i + 1) % c) for i in range(c)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, ring), tree)


def _chunks(source, device):
    """(keys, values, segments, position in the text) of each of a device's two chunks."""
    k_2BKSH, v_2BKSH, seg_2BS = source
    start_2 = _starts(device, 2) * k_2BKSH.shape[3]
    return [(k_2BKSH[b], v_2BKSH[b], seg_2BS[b], start_2[b]) for b in range(2)]


def _sees(row, rows: int, key, keys: int, mask: Mask):
    """Whether any of `rows` query rows from `row` may see any of `keys` keys from `key`."""
    seen = key <= row + rows - 1 if mask.causal else jnp.bool_(True)
    if mask.window is not None:
        seen &= row - (key + keys - 1) < mask.window
        if not mask.causal:
            seen &= key - (row + rows - 1) < mask.window
    return seen


def _scores(q, k, seg, seg_k, row, key, rule: _Rule):
    """Masked float32 scores (B, K, G, r, S), and d(score)/d(q·k)."""
    scores = rule.scores.of(_einsum("BKGrH,BKSH->BKGrS", q, k))
    slope = rule.scores.slope(scores)
    distance = row + jnp.arange(q.shape[3])[:, None] - key - jnp.arange(k.shape[2])
    mask = rule.mask.sees(distance) & (seg[:, :, None] == seg_k[:, None, :])
    return jnp.where(mask[:, None, None], scores, MASKED), slope


def _einsum(formula: str, a, b):
    return jnp.einsum(formula, a, b, preferred_element_type=jnp.float32)
