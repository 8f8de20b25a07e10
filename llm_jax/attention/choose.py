"""Choice of the attention implementation: the platform's kernel if it supports the model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.attention.blockwise import blockwise_attention
from llm_jax.attention.mask import Attend, Cache, Latent, Mask, Scores, visible
from llm_jax.attention.reference import reference_attention
from llm_jax.attention.ring import split_attention
from llm_jax.config import ComputeConfig, require

LANES = 128
"""Width of a TPU's vector registers; the kernel's blocks are multiples of it."""
KERNELS = {"tpu": "splash", "gpu": "cudnn"}
"""Platform → the kernel that `auto` prefers there."""

GATHERED_SPLASH = "splash over gathered keys"
RING, GATHER = (f"{kind} (plain, over split sequences)" for kind in ("ring", "gather"))


class Choice(NamedTuple):
    """The chosen implementation, and the reason."""

    kind: str
    """A key of `IMPLEMENTATIONS`."""
    reason: str = ""
    """Why it is not the platform's kernel; empty if it is."""


def attention_choice(scores: Scores, compute: ComputeConfig, seq_len: int, platform: str) -> Choice:
    """The implementation that `compute.attention` gives on `platform`, in training and evaluation.

    Raises:
      ConfigError: `compute.attention` names a kernel that cannot compute such attention.
    """
    asked = compute.attention
    if asked in ("reference", "blockwise"):
        return Choice(asked)
    kernel = KERNELS.get(platform, "") if asked == "auto" else asked
    if not kernel:
        return Choice("blockwise")
    refusal = _refusal(kernel, scores, compute, seq_len, platform)
    require(
        refusal is None or asked == "auto",
        f"compute.attention is {asked!r}, but {refusal}: choose 'auto' or 'blockwise'.",
    )
    return Choice("blockwise", refusal) if refusal else Choice(kernel)


def split_choice(
    scores: Scores, kind: Literal["ring", "gather"], seq_len: int, shards: int, platform: str
) -> Choice:
    """The implementation for sequences whose length is split into `shards` parts.

    Args:
      kind: `parallel.context_kind`.

    Raises:
      ConfigError: no implementation over split sequences can compute such attention.
    """
    require(
        scores.slopes is None,
        "model.positions is 'alibi', which attention over split sequences (mesh axis 'context') "
        "cannot compute: set parallel.context to 1.",
    )
    plain = RING if kind == "ring" else GATHER
    if platform != "tpu":
        return Choice(plain)
    if kind == "ring":
        return Choice(plain, "the ring has its own blocks")
    refusal = splash_refusal(scores, seq_len // (2 * shards))
    return Choice(plain, refusal) if refusal else Choice(GATHERED_SPLASH)


def _refusal(
    kernel: str, scores: Scores, compute: ComputeConfig, seq_len: int, platform: str
) -> str | None:
    if KERNELS.get(platform) != kernel:
        return f"{kernel} does not run on a {platform}"
    if kernel == "splash":
        return splash_refusal(scores, seq_len)
    if compute.dtype != "bfloat16":
        return f"cuDNN's attention needs compute.dtype = 'bfloat16', not {compute.dtype!r}"
    if scores.head_dim % 8 or scores.head_dim > 128:
        return (
            "cuDNN's attention needs a model.head_dim that is a multiple of 8 and at most 128, "
            f"not {scores.head_dim}"
        )
    if scores.slopes is not None:
        return "cuDNN's attention, as it is called here, has no ALiBi (model.positions)"
    if scores.softcap is not None:
        return "cuDNN's attention has no soft-cap on scores (model.attn_softcap)"
    if scores.sinks:
        return "cuDNN's attention has no attention sinks (model.attn_sinks)"
    if scores.value_dim not in (None, scores.head_dim):
        return (
            "cuDNN's attention needs values of the size of keys, not model.latent.value_dim = "
            f"{scores.value_dim} beside model.head_dim = {scores.head_dim}"
        )
    return None


def splash_refusal(scores: Scores, seq_len: int) -> str | None:
    """Why the kernel cannot compute such attention, or None if it can."""
    if seq_len % LANES:
        return (
            f"splash attention needs a sequence length that is a multiple of {LANES}, not {seq_len}"
        )
    if scores.head_dim % 64:
        return (
            "splash attention needs a model.head_dim that is a multiple of 64, not "
            f"{scores.head_dim}"
        )
    if scores.value_dim is not None and scores.value_dim % 64:
        return (
            "splash attention needs a model.latent.value_dim that is a multiple of 64, not "
            f"{scores.value_dim}"
        )
    if scores.slopes is not None:
        return "splash attention has no ALiBi (model.positions)"
    return None


def attend_by(choice: Choice, scores: Scores, segments_BT: jax.Array) -> Attend:
    """Attention of packed sequences by the chosen implementation, for training and evaluation.

    Args:
      segments_BT: int32, the document of each position; equal numbers see each other. It is in
        `zigzag` order if the mesh splits the length.

    Returns:
      A pytree whose leaf is `segments_BT`.
    """
    attend = functools.partial(_attend, IMPLEMENTATIONS[choice.kind], scores)
    return jax.tree_util.Partial(attend, segments_BT)


def _attend(
    implementation: Callable[..., jax.Array],
    scores: Scores,
    segments_BT: jax.Array,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    mask: Mask,
    cache: Cache,
    sinks_N: jax.Array | None = None,
    latent: Latent | None = None,
) -> tuple[jax.Array, Cache]:
    """`Attend` without a cache, so that `latent` is not needed."""
    return implementation(q_BTNH, k_BTKH, v_BTKH, segments_BT, mask, scores, sinks_N), cache


def _visible(mask: Mask, segments_BT: jax.Array) -> jax.Array:
    everything = slice(0, segments_BT.shape[1])
    return visible(mask, segments_BT, everything, everything)


def _reference(q_BTNH, k_BTKH, v_BTKH, segments_BT, mask, scores, sinks_N=None):
    distance = None
    if scores.slopes is not None:
        row = jnp.arange(segments_BT.shape[1])
        distance = (row[:, None] - row)[None]
    seen = _visible(mask, segments_BT)
    return reference_attention(q_BTNH, k_BTKH, v_BTKH, seen, scores, sinks_N, distance)


def _cudnn(q_BTNH, k_BTKH, v_BTKH, segments_BT, mask, scores, sinks_N=None):
    B, T, *_ = q_BTNH.shape
    return jax.nn.dot_product_attention(
        q_BTNH,
        k_BTKH,
        v_BTKH,
        mask=jnp.broadcast_to(_visible(mask, segments_BT), (B, T, T))[:, None],
        scale=scores.scale,
        is_causal=mask.causal,
        implementation="cudnn",
    )


def _splash(*arguments: Any, gathered: bool) -> jax.Array:
    # Pallas takes long to import, and only a TPU needs it.
    from llm_jax.attention.splash import gathered_splash_attention, splash_attention

    return (gathered_splash_attention if gathered else splash_attention)(*arguments)


IMPLEMENTATIONS: dict[str, Callable[..., jax.Array]] = {
    "reference": _reference,
    "blockwise": blockwise_attention,
    "splash": functools.partial(_splash, gathered=False),
    "cudnn": _cudnn,
    RING: functools.partial(split_attention, kind="ring"),
    GATHER: functools.partial(split_attention, kind="gather"),
    GATHERED_SPLASH: functools.partial(_splash, gathered=True),
}
"""Name → f(q_BTNH, k_BTKH, v_BTKV, segments_BT, mask, scores, sinks_N=None) -> out_BTNV, all of one
function. The choice refuses sinks where a kernel has none."""
