"""Cross-entropy in chunks: float32 logits of the whole batch, (B, T, V), never exist.

The gradient of a chunk is made while its logits are there, in the forward pass, so the backward
pass has nothing to recompute: the loss is the last thing that a model computes, and its gradient is
scaled by one number only.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from llm_jax.config import ModelConfig
from llm_jax.model.layers import dense_gradients
from llm_jax.model.transformer import logits
from llm_jax.parallel.mesh import axis_shards, batch_shards, constrain


def chunk_length(B: int, T: int, tokens: int) -> int:
    """The largest divisor c of T for which a device's part of the batch has B·c <= `tokens`."""
    local = max(B // batch_shards(), 1)
    limit = max(tokens // local, 1)
    return max(c for c in range(1, T + 1) if T % c == 0 and c <= limit)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy(
    x_BTD: jax.Array,
    unembed_DV: jax.Array,
    targets_BT: jax.Array,
    weight: jax.Array,
    config: ModelConfig,
    chunk_tokens: int,
    z_loss: float,
) -> tuple[jax.Array, jax.Array]:
    """Weighted sum of -log p(target) + z_loss·(log Z)² over targets that are not -1.

    Args:
      x_BTD: final hidden states.
      unembed_DV: float32.
      targets_BT: int32; -1 is not counted.
      weight: float32 scalar, 1/number of targets for a mean.
      chunk_tokens: most tokens whose logits exist at one time on a device.

    Returns:
      The loss to differentiate, and the same without the z-loss (nats; not differentiated).
    """
    return _forward(x_BTD, unembed_DV, targets_BT, weight, config, chunk_tokens, z_loss, False)[0]


def _forward(x_BTD, unembed_DV, targets_BT, weight, config, chunk_tokens, z_loss, with_grad):
    B, T, D = x_BTD.shape
    c = chunk_length(B, T, chunk_tokens)
    unembed_DV = unembed_DV.astype(x_BTD.dtype)
    xs = (
        x_BTD.reshape(B, T // c, c, D).swapaxes(0, 1),
        targets_BT.reshape(B, T // c, c).swapaxes(0, 1),
    )

    def body(carry, chunk):
        total, plain, dw_DV = carry
        x_BcD, targets_Bc = chunk
        logits_BcV = constrain(logits(x_BcD, unembed_DV, config), "ends_batch", "length", "vocab")
        log_z_Bc = jax.nn.logsumexp(logits_BcV, axis=-1)
        hit_BcV = jnp.arange(logits_BcV.shape[-1]) == targets_Bc[..., None]
        if axis_shards("tensor") > 1:  # a gather would collect the vocabulary from its mesh axis
            picked_Bc = jnp.sum(jnp.where(hit_BcV, logits_BcV, 0.0), axis=-1)
        else:
            index_Bc1 = jnp.maximum(targets_Bc, 0)[..., None]
            picked_Bc = jnp.take_along_axis(logits_BcV, index_Bc1, axis=-1)[..., 0]
        weight_Bc = jnp.where(targets_Bc >= 0, weight, 0.0)
        nll = jnp.sum(weight_Bc * (log_z_Bc - picked_Bc))
        total += nll + z_loss * jnp.sum(weight_Bc * log_z_Bc**2)
        if not with_grad:
            return (total, plain + nll, None), None
        # d/dlogits of (log Z - picked + z·(log Z)²) is (1 + 2z·log Z)·softmax - onehot.
        pull_Bc1 = (weight_Bc * (1 + 2 * z_loss * log_z_Bc))[..., None]
        probs_BcV = jnp.exp(logits_BcV - log_z_Bc[..., None])
        dlogits_BcV = pull_Bc1 * probs_BcV - jnp.where(hit_BcV, weight_Bc[..., None], 0.0)
        if config.logit_softcap is not None:
            dlogits_BcV *= 1 - (logits_BcV / config.logit_softcap) ** 2
        dx_BcD, dw = dense_gradients(x_BcD, unembed_DV, dlogits_BcV.astype(x_BTD.dtype))
        return (total, plain + nll, dw_DV + dw.astype(jnp.float32)), dx_BcD

    zero = jnp.zeros((), jnp.float32)
    dw_DV = jnp.zeros(unembed_DV.shape, jnp.float32) if with_grad else None
    (total, plain, dw_DV), dx = jax.lax.scan(body, (zero, zero, dw_DV), xs)
    dx_BTD = dx.swapaxes(0, 1).reshape(B, T, D) if with_grad else None
    return (total, plain), (dx_BTD, dw_DV)


def _fwd(x_BTD, unembed_DV, targets_BT, weight, config, chunk_tokens, z_loss):
    return _forward(x_BTD, unembed_DV, targets_BT, weight, config, chunk_tokens, z_loss, True)


def _bwd(config, chunk_tokens, z_loss, residuals, cotangents):
    dx_BTD, dw_DV = residuals
    scale = cotangents[0]
    return (dx_BTD * scale.astype(dx_BTD.dtype), dw_DV * scale, None, None)


cross_entropy.defvjp(_fwd, _bwd)
