"""Causal attention by JAX's splash kernel for TPU: forward and backward, blocks that the mask
empties are skipped, and key/value heads are read where they lie instead of being repeated.

The kernel is FlashAttention-2 (Dao 2023) in Pallas, `jax.experimental.pallas.ops.tpu.
splash_attention`; it sees one device's part of the arrays, so it runs under `shard_map`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

from llm_jax.config import ModelConfig
from llm_jax.model.attention import Shape
from llm_jax.parallel.mesh import spec
from llm_jax.parallel.platform import platform

LANES = 128
"""Width of a TPU's vector registers: the kernel's blocks are multiples of it."""
BLOCKS = (512, 384, 256, 128)
"""Rows of a block; 512 is MaxText's choice for v5 and v6 (its `sa_block_*`)."""


def splash_refusal(model: ModelConfig, seq_len: int) -> str | None:
    """Why the kernel cannot compute this model's attention, or None if it can."""
    if seq_len % LANES:
        return f"splash attention takes sequences of a multiple of {LANES} tokens, not {seq_len}"
    if model.head_dim % 64:
        return f"splash attention takes heads of a multiple of 64, not {model.head_dim}"
    return None


def splash_attention(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segments_BT: jax.Array, shape: Shape
) -> jax.Array:
    """Causal attention within documents; (B, T, N, H) in the dtype of `q_BTNH`.

    Batch and heads are split over the mesh in context as the table of `parallel/mesh.py` says.
    On a CPU the kernel is interpreted, which is for tests alone.
    """
    local = functools.partial(_local, shape=shape)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return local(q_BTNH, k_BTKH, v_BTKH, segments_BT)
    q_spec = spec(("batch", "length", "heads", "head_dim"))
    kv_spec = spec(("batch", "length", "kv_heads", "head_dim"))
    split = jax.shard_map(
        local,
        in_specs=(q_spec, kv_spec, kv_spec, spec(("batch", "length"))),
        out_specs=q_spec,
        check_vma=False,  # the kernel's results carry no record of the axes they vary over
    )
    return split(q_BTNH, k_BTKH, v_BTKH, segments_BT)


def _local(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segments_BT: jax.Array, shape: Shape
) -> jax.Array:
    """The kernel on what one device holds, one sequence after another."""
    _, T, N, _ = q_BTNH.shape
    window = None if shape.window is None or shape.window >= T else shape.window
    mask = (
        masks.CausalMask((T, T))
        if window is None
        else masks.LocalMask((T, T), (window - 1, 0), offset=0)
    )
    attend = kernel.make_splash_mha(
        masks.MultiHeadMask([mask] * N),
        block_sizes=_block_sizes(T),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=shape.softcap,
        interpret=platform() == "cpu",
    )
    q_BNTH = (q_BTNH * jnp.asarray(shape.scale, q_BTNH.dtype)).swapaxes(1, 2)
    segments = kernel.SegmentIds(q=segments_BT, kv=segments_BT)
    out_BNTH = jax.vmap(attend)(q_BNTH, k_BTKH.swapaxes(1, 2), v_BTKH.swapaxes(1, 2), segments)
    return out_BNTH.swapaxes(1, 2)


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
