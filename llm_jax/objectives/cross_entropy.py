"""Cross-entropy in chunks: the float32 logits of the whole batch, (B, T, V), never exist.

The forward pass also computes the gradient of each chunk while its logits exist, so the backward
pass recomputes nothing. That is possible because the loss is the last operation of a model, so the
backward pass only multiplies its gradient by one number.

On a mesh, each device does this for its tokens and its part of the vocabulary (Megatron-LM, Shoeybi
et al. 2019, §3). Sums over the vocabulary are exchanged for each chunk. The gradient of the
unembedding is summed on each device and exchanged once.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from llm_jax.models.common.layers import dense_gradients, project
from llm_jax.parallel.mesh import AXES, axes_of, axis_shards, spec


def chunk_length(B: int, T: int, tokens: int) -> int:
    """The largest divisor c of T with B·c <= `tokens`, at least 1. B and T are those of one
    device's part of the batch."""
    limit = max(tokens // B, 1)
    return max(c for c in range(1, T + 1) if T % c == 0 and c <= limit)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 8))
def cross_entropy(
    x_BTD: jax.Array,
    unembed_DV: jax.Array,
    targets_BT: jax.Array,
    weight: jax.Array,
    softcap: float | None,
    chunk_tokens: int,
    z_loss: float,
    bias_V: jax.Array | None = None,
    smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Weighted sum of -log p(target) + z_loss·(log Z)² over targets that are not -1.

    With smoothing, -log p(target) is (1 - smoothing)·-log p(target) + smoothing times the mean
    -log p of the vocabulary.

    Args:
      x_BTD: final hidden states, in the compute dtype.
      unembed_DV: the output matrix. Its gradient is summed in float32 and has its dtype.
      targets_BT: int32; -1 is not counted.
      weight: float32 scalar; 1/number of targets for a mean.
      softcap: `model.logit_softcap`.
      chunk_tokens: most tokens whose logits exist at one time on a device.
      bias_V: float32, of the output matrix.
      smoothing: `optim.label_smoothing`.

    Returns:
      float32 scalars: the loss to differentiate, and the sum of -log p(target) alone, in nats; it
      has no gradient.
    """
    how = softcap, chunk_tokens, z_loss, bias_V, smoothing
    return _forward(x_BTD, unembed_DV, targets_BT, weight, *how, with_grad=False)[0]


def _forward(
    x_BTD,
    unembed_DV,
    targets_BT,
    weight,
    softcap,
    chunk_tokens,
    z_loss,
    bias_V,
    smoothing,
    *,
    with_grad,
):
    local = functools.partial(
        _local,
        softcap=softcap,
        chunk_tokens=chunk_tokens,
        z_loss=z_loss,
        smoothing=smoothing,
        with_grad=with_grad,
    )
    if axis_shards(*AXES) == 1:
        return local(x_BTD, unembed_DV, targets_BT, weight, bias_V)
    x, w, targets = (
        spec(axes)
        for axes in (("ends_batch", "length", None), (None, "vocab"), ("ends_batch", "length"))
    )
    bias = None if bias_V is None else spec(("vocab",))
    grads = spec(("ends_batch", "stream_length", None)), spec(("embed", "vocab")), bias
    sums, grads = jax.shard_map(
        local,
        in_specs=(x, w, targets, spec(()), bias),
        out_specs=((spec(()), spec(())), grads if with_grad else (None, None, None)),
        check_vma=False,
    )(x_BTD, unembed_DV, targets_BT, weight, bias_V)
    # The barrier makes the exchange of the unembedding's gradient finish before the backward pass
    # of the blocks. Otherwise the unreduced gradient, 4·D·V bytes, would exist during all of it.
    return sums, jax.lax.optimization_barrier(grads)


def _local(
    x_BTD,
    unembed_DV,
    targets_BT,
    weight,
    bias_V,
    *,
    softcap,
    chunk_tokens,
    z_loss,
    smoothing,
    with_grad,
):
    """Loss of all devices, and the gradients of this device's tokens and vocabulary."""
    B, T, D = x_BTD.shape
    V, stored = unembed_DV.shape[1], unembed_DV.dtype
    over_vocab, over_tokens = axes_of("vocab"), axes_of("ends_batch", "length")
    first = jax.lax.axis_index(over_vocab) * V if over_vocab else 0
    spread = smoothing / (V * axis_shards(*over_vocab)) if smoothing else 0.0
    c = chunk_length(B, T, chunk_tokens)
    unembed_DV = unembed_DV.astype(x_BTD.dtype)
    xs = (
        x_BTD.reshape(B, T // c, c, D).swapaxes(0, 1),
        targets_BT.reshape(B, T // c, c).swapaxes(0, 1),
    )

    def body(carry, chunk):
        total, plain, dw_DV, db_V = carry
        x_BcD, targets_Bc = chunk
        logits_BcV = project(x_BcD, unembed_DV, softcap, bias_V)
        index_Bc1 = (targets_Bc - first)[..., None]
        hit_BcV = jnp.arange(V) == index_Bc1
        picked_Bc1 = jnp.take_along_axis(logits_BcV, jnp.clip(index_Bc1, 0, V - 1), axis=-1)
        picked_Bc = picked_Bc1[..., 0]
        log_z_Bc = jax.nn.logsumexp(logits_BcV, axis=-1)
        if over_vocab:
            mine_Bc = (index_Bc1[..., 0] >= 0) & (index_Bc1[..., 0] < V)
            top_Bc = jax.lax.pmax(log_z_Bc, over_vocab)
            sums = jnp.exp(log_z_Bc - top_Bc), jnp.where(mine_Bc, picked_Bc, 0.0)
            z_Bc, picked_Bc = jax.lax.psum(sums, over_vocab)
            log_z_Bc = top_Bc + jnp.log(z_Bc)
        weight_Bc = jnp.where(targets_Bc >= 0, weight, 0.0)
        nll = jnp.sum(weight_Bc * (log_z_Bc - picked_Bc))
        total += nll + z_loss * jnp.sum(weight_Bc * log_z_Bc**2)
        if smoothing:
            even_Bc = spread * jnp.sum(logits_BcV, axis=-1)
            if over_vocab:
                even_Bc = jax.lax.psum(even_Bc, over_vocab)
            total += jnp.sum(weight_Bc * (smoothing * picked_Bc - even_Bc))
        if not with_grad:
            return (total, plain + nll, None, None), None
        # d/dlogits of (log Z - picked + z·(log Z)²) is (1 + 2z·log Z)·softmax - onehot. Smoothing
        # makes the onehot (1 - s)·onehot + s/V.
        pull_Bc1 = (weight_Bc * (1 + 2 * z_loss * log_z_Bc))[..., None]
        probs_BcV = jnp.exp(logits_BcV - log_z_Bc[..., None])
        sought_Bc1 = (1 - smoothing) * weight_Bc[..., None]
        dlogits_BcV = pull_Bc1 * probs_BcV - jnp.where(hit_BcV, sought_Bc1, 0.0)
        if smoothing:
            dlogits_BcV -= spread * weight_Bc[..., None]
        if softcap is not None:
            dlogits_BcV *= 1 - (logits_BcV / softcap) ** 2
        dx_BcD, dw = dense_gradients(x_BcD, unembed_DV, dlogits_BcV.astype(x_BTD.dtype))
        if db_V is not None:
            db_V += jnp.sum(dlogits_BcV, axis=(0, 1))
        return (total, plain + nll, dw_DV + dw.astype(jnp.float32), db_V), dx_BcD

    zero = jnp.zeros((), jnp.float32)
    dw_DV = jnp.zeros(unembed_DV.shape, jnp.float32) if with_grad else None
    db_V = jnp.zeros(V, jnp.float32) if with_grad and bias_V is not None else None
    (total, plain, dw_DV, db_V), dx = jax.lax.scan(body, (zero, zero, dw_DV, db_V), xs)
    if over_tokens:
        total, plain = jax.lax.psum((total, plain), over_tokens)
    if dw_DV is None:
        return (total, plain), (None, None, None)
    dx_BTD = dx.swapaxes(0, 1).reshape(B, T, D)
    if over_vocab:
        dx_BTD = jax.lax.psum_scatter(dx_BTD, over_vocab, scatter_dimension=1, tiled=True)
    if split := axes_of("embed"):
        dw_DV = jax.lax.psum_scatter(dw_DV, split, scatter_dimension=0, tiled=True)
    if whole := tuple(axis for axis in over_tokens if axis not in split):
        dw_DV = jax.lax.psum(dw_DV, whole)
    if db_V is not None and over_tokens:
        db_V = jax.lax.psum(db_V, over_tokens)
    return (total, plain), (dx_BTD, dw_DV.astype(stored), db_V)


def _fwd(
    x_BTD,
    unembed_DV,
    targets_BT,
    weight,
    softcap,
    chunk_tokens,
    z_loss,
    bias_V=None,
    smoothing=0.0,
):
    how = softcap, chunk_tokens, z_loss, bias_V, smoothing
    return _forward(x_BTD, unembed_DV, targets_BT, weight, *how, with_grad=True)


def _bwd(softcap, chunk_tokens, z_loss, smoothing, residuals, cotangents):
    dx_BTD, dw_DV, db_V = (
        grad if grad is None else grad * cotangents[0].astype(grad.dtype) for grad in residuals
    )
    return dx_BTD, dw_DV, None, None, db_V


cross_entropy.defvjp(_fwd, _bwd)
