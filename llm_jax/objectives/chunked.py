"""Cross-entropy of a model whose logits are more than one product, in chunks.

`cross_entropy.py` is cheaper, and knows only hidden states times a matrix. Here the logits of one
chunk exist at a time too, and the backward pass computes them again.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from llm_jax.objectives.cross_entropy import chunk_length
from llm_jax.parallel.mesh import axes_of, axis_shards


def nats_of_logits(
    logits: Callable[[jax.Array], jax.Array],
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weight: jax.Array,
    chunk_tokens: int,
    z_loss: float,
) -> tuple[jax.Array, jax.Array]:
    """Weighted sum of -log p(target) + z_loss·(log Z)² over targets that are not -1.

    Args:
      logits: float32 logits (…, V) of hidden states (…, D).
      x_BTD: final hidden states, in the compute dtype.
      targets_BT: int32; -1 is not counted.
      weight: float32 scalar; 1/number of targets for a mean.
      chunk_tokens: most tokens whose logits exist at one time on a device.

    Returns:
      float32 scalars: the loss to differentiate, and the same without the z-loss, in nats.
    """
    B, T, D = x_BTD.shape
    c = chunk_length(max(B // axis_shards(*axes_of("ends_batch")), 1), T, chunk_tokens)

    @jax.checkpoint
    def of_chunk(chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x_BcD, targets_Bc = chunk
        logits_BcV = logits(x_BcD)
        hit_BcV = jnp.arange(logits_BcV.shape[-1]) == targets_Bc[..., None]
        log_z_Bc = jax.nn.logsumexp(logits_BcV, axis=-1)
        nats_Bc = log_z_Bc - jnp.sum(jnp.where(hit_BcV, logits_BcV, 0.0), axis=-1)
        weight_Bc = jnp.where(targets_Bc >= 0, weight, 0.0)
        return jnp.sum(weight_Bc * nats_Bc), jnp.sum(weight_Bc * log_z_Bc**2)

    if c == T:
        nats, squares = of_chunk((x_BTD, targets_BT))
    else:
        chunks = (
            x_BTD.reshape(B, T // c, c, D).swapaxes(0, 1),
            targets_BT.reshape(B, T // c, c).swapaxes(0, 1),
        )
        nats, squares = (jnp.sum(part) for part in jax.lax.map(of_chunk, chunks))
    return nats + z_loss * squares, jax.lax.stop_gradient(nats)
