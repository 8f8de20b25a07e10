"""Attention by JAX's splash kernel for TPU, forward and backward.

The kernel skips blocks that are fully masked. It reads key/value heads in place and does not repeat
them. It is FlashAttention-2 (Dao 2023) in Pallas
(`jax.experimental.pallas.ops.tpu.splash_attention`). It works on one device's part of the arrays,
so it runs under `shard_map`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jax.sharding import NamedSharding, PartitionSpec

from llm_jax.attention.mask import Mask, Scores
from llm_jax.attention.ring import split_attention, zigzag
from llm_jax.parallel.mesh import axis_shards, spec
from llm_jax.parallel.platform import platform

BLOCKS = (512, 384, 256, 128)
"""Allowed rows per block, multiples of `choose.LANES`. 512 is MaxText's choice for v5 and v6 (its
`sa_block_*`)."""


def splash_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    mask: Mask,
    scores: Scores,
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """Attention within documents; (B, T, N, H) in the dtype of `q_BTNH`.

    Batch and heads are split over the mesh in context, by the table of `parallel/mesh.py`. On a CPU
    the kernel is interpreted, for tests only.
    """
    local = functools.partial(_local, mask=mask, scores=scores)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return local(q_BTNH, k_BTKH, v_BTKH, segments_BT, sinks_N)
    q_spec = spec(("batch", "length", "heads", "head_dim"))
    kv_spec = spec(("batch", "length", "kv_heads", "head_dim"))
    split = jax.shard_map(
        local,
        in_specs=(q_spec, kv_spec, kv_spec, spec(("batch", "length")), _sinks_spec(sinks_N)),
        out_specs=q_spec,
        check_vma=False,  # the kernel's results do not record the mesh axes that they vary over
    )
    return split(q_BTNH, k_BTKH, v_BTKH, segments_BT, sinks_N)


def _sinks_spec(sinks_N: jax.Array | None) -> PartitionSpec | None:
    return None if sinks_N is None else spec(("heads",))


def _local(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    sinks_N: jax.Array | None,
    mask: Mask,
    scores: Scores,
) -> jax.Array:
    """The kernel on one device's part, one sequence after another."""
    _, T, N, _ = q_BTNH.shape
    attend = _kernel(_mask(T, mask), N, _block_sizes(T), scores)
    segments = kernel.SegmentIds(q=segments_BT, kv=segments_BT)
    return _of_sequences(attend, q_BTNH, k_BTKH, v_BTKH, segments, scores, sinks_N)


def gathered_splash_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    mask: Mask,
    scores: Scores,
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """`splash_attention` for sequences in `zigzag` order, split over the mesh axis `context`.

    Each device's queries see all keys, gathered in the order of the text (Grattafiori et al. 2024,
    §3.3.2). The kernel knows the positions of the queries, so it skips blocks that the mask
    empties. Where the mask hides nothing, plain code does the same.
    """
    T, shards = q_BTNH.shape[1], axis_shards("context")
    chunk = T // (2 * shards)
    mask_TS = _mask(T, mask)
    if isinstance(mask_TS, masks.FullMask):  # the kernel cannot split a mask that hides nothing
        return split_attention(
            q_BTNH, k_BTKH, v_BTKH, segments_BT, mask, scores, sinks_N, kind="gather"
        )
    order_T = zigzag(T, shards)
    mask_TS.q_sequence = order_T.astype(np.int32)
    heads = q_BTNH.shape[2] // axis_shards("tensor")
    attend = _kernel(mask_TS, heads, _block_sizes(chunk), scores, shards)
    chunks_in_text = np.argsort(order_T[::chunk])

    def whole(x: jax.Array) -> jax.Array:
        x = jax.lax.all_gather(x, "context", axis=1, tiled=True)
        chunks = x.reshape(x.shape[0], 2 * shards, chunk, *x.shape[2:])[:, chunks_in_text]
        return chunks.reshape(x.shape)

    def local(attend, q_BTNH, k_BTKH, v_BTKH, segments_BT, sinks_N):
        segments = kernel.SegmentIds(q=segments_BT, kv=whole(segments_BT))
        keys, values = whole(k_BTKH), whole(v_BTKH)
        return _of_sequences(attend, q_BTNH, keys, values, segments, scores, sinks_N)

    rows = NamedSharding(jax.sharding.get_abstract_mesh(), spec((None, "length")))
    q_spec = spec(("batch", "length", "heads", "head_dim"))
    kv_spec = spec(("batch", "length", "kv_heads", "head_dim"))
    return jax.shard_map(
        local,
        in_specs=(
            attend.manual_sharding_spec(rows), q_spec, kv_spec, kv_spec,
            spec(("batch", "length")), _sinks_spec(sinks_N),
        ),
        out_specs=q_spec,
        check_vma=False,
    )(attend, q_BTNH, k_BTKH, v_BTKH, segments_BT, sinks_N)  # fmt: skip


def _mask(T: int, mask: Mask) -> masks.CausalMask | masks.LocalMask | masks.FullMask:
    """The kernel's mask for queries and keys in the order of the text."""
    window = None if mask.window is None or mask.window >= T else mask.window - 1
    if window is not None:
        return masks.LocalMask((T, T), (window, 0 if mask.causal else window), offset=0)
    return masks.CausalMask((T, T)) if mask.causal else masks.FullMask((T, T))


def _kernel(
    mask: masks.Mask, heads: int, blocks: kernel.BlockSizes, scores: Scores, shards: int = 1
) -> kernel.SplashAttentionKernel:
    return kernel.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=shards,
        attn_logits_soft_cap=scores.softcap,
        interpret=platform() == "cpu",
    )


def _of_sequences(
    attend: Callable[..., Any],
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    segments: kernel.SegmentIds,
    scores: Scores,
    sinks_N: jax.Array | None,
) -> jax.Array:
    q_BNTH = (q_BTNH * jnp.asarray(scores.scale, q_BTNH.dtype)).swapaxes(1, 2)
    parts = q_BNTH, k_BSKH.swapaxes(1, 2), v_BSKH.swapaxes(1, 2), segments, sinks_N
    return jax.vmap(attend, (0, 0, 0, 0, None))(*parts).swapaxes(1, 2)


def _block_sizes(T: int) -> kernel.BlockSizes:
    """Square blocks: the largest of `BLOCKS` that divides the sequence."""
    rows = next(size for size in BLOCKS if T % size == 0)
    return kernel.BlockSizes(
        block_q=rows,
        block_kv=rows,
        block_kv_compute=rows,
        block_q_dkv=rows,
        block_kv_dkv=rows,
        block_kv_dkv_compute=rows,
        block_q_dq=rows,
        block_kv_dq=rows,
    )
