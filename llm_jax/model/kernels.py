"""Choice of the attention implementation: the platform's kernel if it supports the model."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.config import ComputeConfig, ModelConfig, require
from llm_jax.model.attention import (
    Shape,
    blockwise_attention,
    causal_mask,
    reference_attention,
)
from llm_jax.model.splash import splash_attention, splash_refusal

KERNELS = {"tpu": "splash", "gpu": "cudnn"}
"""Platform → the kernel that `auto` prefers there."""

GATHERED_SPLASH = "splash over gathered keys"


class Choice(NamedTuple):
    """The chosen implementation, and the reason."""

    kind: str
    reason: str = ""
    """Why it is not the platform's kernel; empty if it is."""


def attention_choice(
    model: ModelConfig, compute: ComputeConfig, seq_len: int, platform: str
) -> Choice:
    """The implementation that `compute.attention` gives on `platform`, in training and evaluation.

    Raises:
      ConfigError: `compute.attention` names a kernel that cannot compute this model's attention.
    """
    asked = compute.attention
    if asked in ("reference", "blockwise"):
        return Choice(asked)
    kernel = KERNELS.get(platform, "") if asked == "auto" else asked
    if not kernel:
        return Choice("blockwise")
    refusal = _refusal(kernel, model, compute, seq_len, platform)
    require(
        refusal is None or asked == "auto",
        f"compute.attention is {asked!r}, but {refusal}: choose 'auto' or 'blockwise'.",
    )
    return Choice("blockwise", refusal) if refusal else Choice(kernel)


def split_choice(
    model: ModelConfig, kind: Literal["ring", "gather"], seq_len: int, shards: int, platform: str
) -> Choice:
    """The implementation for sequences whose length is split into `shards` parts.

    Args:
      kind: `parallel.context_kind`.
    """
    plain = f"{kind} (plain, over split sequences)"
    if platform != "tpu":
        return Choice(plain)
    if kind == "ring":
        return Choice(plain, "the ring has its own blocks")
    refusal = splash_refusal(model, seq_len // (2 * shards))
    return Choice(plain, refusal) if refusal else Choice(GATHERED_SPLASH)


def _refusal(
    kernel: str, model: ModelConfig, compute: ComputeConfig, seq_len: int, platform: str
) -> str | None:
    if KERNELS.get(platform) != kernel:
        return f"{kernel} does not run on a {platform}"
    if kernel == "splash":
        return splash_refusal(model, seq_len)
    if compute.dtype != "bfloat16":
        return f"cuDNN's attention needs compute.dtype = 'bfloat16', not {compute.dtype!r}"
    if model.head_dim % 8 or model.head_dim > 128:
        return (
            "cuDNN's attention needs a model.head_dim that is a multiple of 8 and at most 128, "
            f"not {model.head_dim}"
        )
    if model.attn_softcap is not None:
        return "cuDNN's attention has no soft-cap on scores (model.attn_softcap)"
    return None


def attention(
    kind: str,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    shape: Shape,
) -> jax.Array:
    """Causal attention within documents; (B, T, N, H) in the dtype of `q_BTNH`.

    Args:
      kind: `splash`, `blockwise`, `reference` or `cudnn`.
      segments_BT: int32, the document of each row.
    """
    if kind == "splash":
        return splash_attention(q_BTNH, k_BTKH, v_BTKH, segments_BT, shape)
    if kind == "blockwise":
        return blockwise_attention(q_BTNH, k_BTKH, v_BTKH, segments_BT, shape)
    T = segments_BT.shape[1]
    mask_BTT = causal_mask(segments_BT, slice(0, T), slice(0, T), shape.window)
    if kind == "reference":
        return reference_attention(
            q_BTNH, k_BTKH, v_BTKH, mask_BTT, scale=shape.scale, softcap=shape.softcap
        )
    return jax.nn.dot_product_attention(
        q_BTNH,
        k_BTKH,
        v_BTKH,
        mask=jnp.broadcast_to(mask_BTT, (q_BTNH.shape[0], T, T))[:, None],
        scale=shape.scale,
        is_causal=True,
        implementation="cudnn",
    )
