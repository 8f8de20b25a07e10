"""Log-probabilities of single tokens: what preferences, rewards and evaluations are made from."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from llm_jax.models.common.layers import project
from llm_jax.objectives.cross_entropy import chunk_length


def token_log_probs(
    x_BTD: jax.Array,
    unembed_DV: jax.Array,
    targets_BT: jax.Array,
    softcap: float | None = None,
    chunk_tokens: int = 512,
    bias_V: jax.Array | None = None,
) -> jax.Array:
    """log p of each target, (B, T) float32; 0 where the target is -1. It can be differentiated.

    The logits of one chunk exist at a time, and the backward pass computes them again. The sum over
    the targets is `-cross_entropy(…, weight=1)`, which is cheaper if only the sum is needed.

    Args:
      x_BTD: final hidden states, in the compute dtype.
      unembed_DV: the output matrix.
      targets_BT: int32; -1 is not counted.
      softcap: `model.logit_softcap`.
      chunk_tokens: most tokens whose logits exist at one time.
      bias_V: float32, of the output matrix.
    """
    B, T, D = x_BTD.shape
    c = chunk_length(B, T, chunk_tokens)

    @jax.checkpoint
    def of_chunk(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        x_BcD, targets_Bc = chunk
        logits_BcV = project(x_BcD, unembed_DV, softcap, bias_V)
        index_Bc1 = jnp.maximum(targets_Bc, 0)[..., None]
        picked_Bc = jnp.take_along_axis(logits_BcV, index_Bc1, axis=-1)[..., 0]
        log_p_Bc = picked_Bc - jax.nn.logsumexp(logits_BcV, axis=-1)
        return jnp.where(targets_Bc >= 0, log_p_Bc, 0.0)

    chunks = (
        x_BTD.reshape(B, T // c, c, D).swapaxes(0, 1),
        targets_BT.reshape(B, T // c, c).swapaxes(0, 1),
    )
    return jax.lax.map(of_chunk, chunks).swapaxes(0, 1).reshape(B, T)
