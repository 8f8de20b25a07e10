"""The computation of routed experts, on one device or with experts split over a mesh axis.

`capacity_factor` chooses one of two methods:

* dropless (None): the assignments are sorted by expert and multiplied group by group (MegaBlocks,
  Gale et al. 2022; `jax.lax.ragged_dot`). On the mesh axis `expert`, tokens are all-gathered, each
  device computes the output of its experts, and the sums are reduce-scattered.
* capacity: each expert has a fixed number of slots for each sequence (GShard, Lepikhin et al. 2020,
  with a sequence as the group). So the mesh does not change which tokens are dropped. On the mesh
  axis `expert`, slots move by all-to-all.

Legend in addition to the project's: k experts per token, n tokens of a device, r = n·k assignments
sorted by expert, C slots, F width of one expert.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from llm_jax.config import ModelConfig, MoeConfig
from llm_jax.models.common.activations import ACTIVATIONS, gated
from llm_jax.models.common.ragged import ragged_dot
from llm_jax.parallel.mesh import AXES, GATHERED, axes_of, axis_shards, spec


class Experts(NamedTuple):
    """The weights of E experts, in the dtype of the activations. The biases of their outputs are
    added outside, where each token has the sum of its experts."""

    up: jax.Array
    """(E, D, F)."""
    down: jax.Array
    """(E, F, D)."""
    gate: jax.Array | None = None
    """(E, D, F); None where the MLP is not gated."""
    up_bias: jax.Array | None = None
    """(E, F), as `gate_bias`; None without biases."""
    gate_bias: jax.Array | None = None

    def logical(self) -> dict[str, tuple[str, ...]]:
        """The names of the axes of those that are there."""
        into, bias = ("experts", "expert_embed", "expert_mlp"), ("experts", "expert_mlp")
        names: dict[str, tuple[str, ...]] = {
            "up": into,
            "down": (into[0], into[2], into[1]),
            "gate": into,
        }
        names |= {"up_bias": bias, "gate_bias": bias}
        return {name: axes for name, axes in names.items() if getattr(self, name) is not None}


class Assignment(NamedTuple):
    """Which experts see which tokens."""

    expert_BTk: jax.Array
    """int32 number of each chosen expert."""
    weight_BTk: jax.Array
    """float32 factor on the expert's output."""
    rank_BTk: jax.Array | None = None
    """int32 place in the expert's queue for the sequence. None: nothing is dropped."""


def slots_per_expert(moe: MoeConfig, seq_len: int) -> int:
    """C: the number of assignments that one expert takes from one sequence."""
    assert moe.capacity_factor is not None
    return max(1, math.ceil(moe.capacity_factor * seq_len * moe.top_k / moe.experts))


def ranks_within_expert(expert_BTk: jax.Array) -> jax.Array:
    """(B, T, k) int32: earlier assignments of the same sequence to the same expert.

    The order is that of the tokens, so that no token depends on a later one. GShard serves all
    first choices before the second ones; a causal language model must not do that.
    """
    B, T, k = expert_BTk.shape

    def ranks(expert_a: jax.Array) -> jax.Array:
        order_a = jnp.argsort(expert_a, stable=True)
        sorted_a = expert_a[order_a]
        first_a = jnp.searchsorted(sorted_a, sorted_a, side="left")
        return jnp.zeros_like(expert_a).at[order_a].set(jnp.arange(T * k) - first_a)

    return jax.vmap(ranks)(expert_BTk.reshape(B, T * k)).reshape(B, T, k)


def apply_experts(
    x_BTD: jax.Array, assigned: Assignment, weights: Experts, config: ModelConfig
) -> jax.Array:
    """Weighted sum of the chosen experts' outputs without their biases, (B, T, D) in the dtype of
    `x_BTD`."""
    B, T, _ = x_BTD.shape
    scatter = T % axis_shards("context", "tensor") == 0  # not in a step of decoding
    local = functools.partial(_local, config=config, scatter=scatter)
    if axis_shards(*AXES) == 1:
        return local(x_BTD, assigned, weights)
    batch = None if B == 1 else "batch"
    tokens = spec((batch, "length", None))
    experts: Any = {name: spec(axes) for name, axes in weights.logical().items()}
    return jax.shard_map(
        local,
        in_specs=(
            tokens,
            jax.tree.map(lambda _: tokens, assigned),
            Experts(**experts),
        ),
        out_specs=spec((batch, "stream_length" if scatter else "length", "act_embed")),
        check_vma=False,  # fails under the pipeline's vmap
    )(x_BTD, assigned, weights)


def _local(
    x_BTD: jax.Array, assigned: Assignment, weights: Experts, *, config: ModelConfig, scatter: bool
) -> jax.Array:
    """The part of one device: its tokens, its experts, and its columns of their width.

    Args:
      scatter: `tensor` divides the length of the result.
    """
    combine = _dropless if assigned.rank_BTk is None else _capacity
    if split := axes_of("expert_embed"):  # gathered here, so that gradients are reduce-scattered
        weights = weights._replace(
            gate=None if weights.gate is None else _whole(weights.gate, split, 1),
            up=_whole(weights.up, split, 1),
            down=_whole(weights.down, split, 2),
        )
    out_BTD = combine(x_BTD, assigned, weights, config)
    if axis_shards("tensor") == 1:
        return out_BTD
    if not scatter:
        return jax.lax.psum(out_BTD, "tensor")
    return jax.lax.psum_scatter(out_BTD, "tensor", scatter_dimension=1, tiled=True)


def _whole(w: jax.Array, split: tuple[str, ...], axis: int) -> jax.Array:
    return checkpoint_name(jax.lax.all_gather(w, split, axis=axis, tiled=True), GATHERED)


def _dropless(
    x_BTD: jax.Array, assigned: Assignment, weights: Experts, config: ModelConfig
) -> jax.Array:
    split = axis_shards("expert") > 1
    first: int | jax.Array = 0
    if split:
        gather = functools.partial(jax.lax.all_gather, axis_name="expert", axis=0, tiled=True)
        x_BTD, assigned = gather(x_BTD), jax.tree.map(gather, assigned)
        first = jax.lax.axis_index("expert") * weights.up.shape[0]
    k, D = assigned.expert_BTk.shape[-1], x_BTD.shape[-1]
    expert_nk = assigned.expert_BTk.reshape(-1, k) - first
    weight_nk = assigned.weight_BTk.reshape(-1, k)
    out_nD = grouped(x_BTD.reshape(-1, D), expert_nk, weight_nk, weights, config)
    out_BTD = out_nD.reshape(x_BTD.shape)
    if split:
        out_BTD = jax.lax.psum_scatter(out_BTD, "expert", scatter_dimension=0, tiled=True)
    return out_BTD


def grouped(
    x_nD: jax.Array,
    expert_nk: jax.Array,
    weight_nk: jax.Array,
    weights: Experts,
    config: ModelConfig,
) -> jax.Array:
    """Weighted sum of the outputs of the experts 0 … E-1 of `weights`, (n, D) as `x_nD`.

    Expert numbers outside of 0 … E-1 in `expert_nk` add 0.
    """
    k, E = expert_nk.shape[1], weights.up.shape[0]
    expert_r = expert_nk.reshape(-1)
    expert_r = jnp.where((expert_r >= 0) & (expert_r < E), expert_r, E)
    order_r = jnp.argsort(expert_r, stable=True)
    place_r = jnp.argsort(order_r)
    sizes_E = jnp.bincount(expert_r, length=E + 1)[:E].astype(jnp.int32)
    # Rows after the last group belong to no expert, so the result of `ragged_dot` there is ignored.
    used_r1 = (jnp.arange(expert_r.size) < jnp.sum(sizes_E))[:, None]
    rows_rD = jnp.where(used_r1, _spread(x_nD, order_r, place_r, k), 0)
    rows_rD = _mlp(
        rows_rD,
        weights,
        config,
        lambda x, w: ragged_dot(x, w, sizes_E),
        lambda bias_EF: bias_EF[jnp.minimum(expert_r[order_r], E - 1)],
    )
    back_rD = _permute(jnp.where(used_r1, rows_rD, 0), place_r, order_r)
    back_nkD = back_rD.reshape(-1, k, x_nD.shape[1])
    return jnp.einsum("nkD,nk->nD", back_nkD, weight_nk.astype(x_nD.dtype))


def _capacity(
    x_BTD: jax.Array, assigned: Assignment, weights: Experts, config: ModelConfig
) -> jax.Array:
    assert config.moe is not None and assigned.rank_BTk is not None
    B, T, D = x_BTD.shape
    E, k = config.moe.experts, config.moe.top_k
    C = slots_per_expert(config.moe, T)
    kept_BTk = assigned.rank_BTk < C
    slot_BTk = jnp.where(kept_BTk, assigned.expert_BTk * C + assigned.rank_BTk, E * C)
    # Token of each slot. An empty slot gets token T, a row of zeros. The last slot takes dropped
    # assignments.
    token_Ba = jnp.broadcast_to(jnp.arange(T)[:, None], (T, k)).reshape(-1)
    token_Bs = jax.vmap(lambda slot_a: jnp.full(E * C + 1, T).at[slot_a].set(token_Ba))(
        slot_BTk.reshape(B, -1)
    )[:, :-1]
    padded = jnp.pad(x_BTD, ((0, 0), (0, 1), (0, 0)))
    slots_BECD = jax.vmap(jnp.take, (0, 0, None))(padded, token_Bs, 0).reshape(B, E, C, D)
    split = axis_shards("expert") > 1
    move = functools.partial(jax.lax.all_to_all, axis_name="expert", tiled=True)
    if split:
        slots_BECD = move(slots_BECD, split_axis=1, concat_axis=0)
    slots_BECD = _mlp(
        slots_BECD,
        weights,
        config,
        lambda x, w: jnp.einsum("BECi,Eio->BECo", x, w),
        lambda bias_EF: bias_EF[:, None],
    )
    if split:
        slots_BECD = move(slots_BECD, split_axis=0, concat_axis=1)
    padded = jnp.pad(slots_BECD.reshape(B, E * C, D), ((0, 0), (0, 1), (0, 0)))
    back = jax.vmap(jnp.take, (0, 0, None))(padded, slot_BTk.reshape(B, -1), 0)
    weight_BTk = assigned.weight_BTk.astype(x_BTD.dtype)
    return jnp.einsum("BTkD,BTk->BTD", back.reshape(B, T, k, D), weight_BTk)


def _mlp(x, weights: Experts, config: ModelConfig, dot, of_rows):
    """The experts' MLP without the biases of its output.

    `dot` multiplies each row by its expert's matrix, `of_rows` gives each row its expert's bias.
    """

    def named(x: jax.Array, w: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        y = checkpoint_name(dot(x, w), "dense")  # as `layers.dense` names its result
        return y if bias is None else y + of_rows(bias)

    h = named(x, weights.up, weights.up_bias)
    if weights.gate is None:
        h = ACTIVATIONS[config.activation](h)
    else:
        h = gated(config.activation, named(x, weights.gate, weights.gate_bias), h)
    return named(h, weights.down)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _spread(x_nD: jax.Array, order_r: jax.Array, place_r: jax.Array, k: int) -> jax.Array:
    """Row of each assignment, sorted by expert. Its gradient is a gather; JAX's is a scatter."""
    return x_nD[order_r // k]


def _spread_bwd(k, place_r, dy_rD):
    return dy_rD[place_r].reshape(-1, k, dy_rD.shape[-1]).sum(axis=1), None, None


_spread.defvjp(lambda x, order, place, k: (_spread(x, order, place, k), place), _spread_bwd)


@jax.custom_vjp
def _permute(x_rD: jax.Array, order_r: jax.Array, inverse_r: jax.Array) -> jax.Array:
    return x_rD[order_r]


_permute.defvjp(
    lambda x, order, inverse: (x[order], inverse), lambda inverse, dy: (dy[inverse], None, None)
)
