"""Mixture of experts: a router sends each token to k of E experts (token choice).

Shazeer et al. 2017; Switch Transformer, Fedus et al. 2022; shared experts as in DeepSeekMoE, Dai et
al. 2024; groups of experts as in DeepSeek-V2 and V3. Legend in addition to the project's: k experts
per token, g groups, e experts of a group, F width of one expert. This file holds the choice of
experts and its balance. `experts.py` holds their computation, on one device or over a mesh.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.config import ModelConfig, MoeConfig
from llm_jax.models.common.experts import (
    Assignment,
    Experts,
    apply_experts,
    ranks_within_expert,
    slots_per_expert,
)
from llm_jax.models.common.layers import Mlp, Product, dense, init_std, normal, zeros


class Routing(NamedTuple):
    """Measurements of one layer's router on a batch, float32."""

    loss: jax.Array
    """Weighted sum of the balance and z losses, to be added to the model's loss."""
    balance: jax.Array
    """E·Σ f·P of the Switch Transformer; 1 if every expert gets an even share."""
    load_E: jax.Array
    """Share of the assignments that go to each expert, including dropped ones; the sum is 1."""
    dropped: jax.Array
    """Share of the assignments that were dropped because an expert was full."""


def summary(routings: Routing) -> dict[str, jax.Array]:
    """Metrics over the micro-batches and layers of a step, float32 scalars.

    `moe_balance`: mean balance; 1 is even. `moe_max_load`: load of the busiest expert in any layer,
    relative to an even share. `moe_dropped`: share of all assignments that were dropped.

    Args:
      routings: each leaf has two more leading axes, micro-batches and layers.
    """
    load_LE = jnp.mean(routings.load_E, axis=0)
    return {
        "moe_balance": jnp.mean(routings.balance),
        "moe_max_load": load_LE.shape[-1] * jnp.max(load_LE),
        "moe_dropped": jnp.mean(routings.dropped),
    }


class Moe(nnx.Module):
    """Routed experts, gated MLPs of width F each, and shared experts that see every token."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        assert config.moe is not None
        moe = config.moe
        D, E, F = config.d_model, moe.experts, moe.d_ff
        self.config, self.moe = config, moe
        std = init_std(config)
        out_std = std / math.sqrt(2 * config.num_layers)
        into, out_of = (
            ("experts", "expert_embed", "expert_mlp"),
            ("experts", "expert_mlp", "expert_embed"),
        )
        self.router = normal(rngs, (D, E), ("embed", "router"), std, "router")
        if config.mlp_bias:
            self.router_bias = zeros((E,), ("router",))
            self.up_bias = zeros((E, F), ("experts", "expert_mlp"))
            self.down_bias = zeros((E, D), ("experts", "norm"))
        self.up = normal(rngs, (E, D, F), into, std)
        self.down = normal(rngs, (E, F, D), out_of, out_std)
        if config.gated:
            self.gate = normal(rngs, (E, D, F), into, std)
            if config.mlp_bias:
                self.gate_bias = zeros((E, F), ("experts", "expert_mlp"))
        if moe.balance_rate:
            self.bias = zeros((E,), ("balance",), "balance")
        if moe.shared_d_ff:
            self.shared = Mlp(config, rngs, moe.shared_d_ff)
        if moe.shared_gate:
            self.shared_gate = normal(rngs, (D, 1), ("embed", "router"), std, "router")

    def __call__(self, x_BTD: jax.Array, matmul: Product = dense) -> tuple[jax.Array, Routing]:
        """Weighted sum of the experts' outputs, shape and dtype of `x_BTD`, and the `Routing`.

        `matmul` applies to the shared experts only.
        """
        moe = self.moe
        scores_BTE = self._scores(x_BTD, self.router)
        if self.config.mlp_bias:
            scores_BTE += self.router_bias[...]
        bias_E = self.bias[...] if moe.balance_rate else None
        assigned, affinity_BTE = route(scores_BTE, bias_E, moe)
        dropped = jnp.zeros((), jnp.float32)
        if moe.capacity_factor is not None:
            rank_BTk = ranks_within_expert(assigned.expert_BTk)
            slots = slots_per_expert(moe, x_BTD.shape[1])
            assigned = assigned._replace(rank_BTk=rank_BTk)
            dropped = jnp.mean((rank_BTk >= slots).astype(jnp.float32))
        out_BTD = apply_experts(x_BTD, assigned, self._experts(x_BTD.dtype), self.config)
        if self.config.mlp_bias:
            out_BTD += self._output_biases(assigned, x_BTD)
        if moe.shared_d_ff:
            shared_BTD = self.shared(x_BTD, matmul)
            if moe.shared_gate:
                gate_BT1 = jax.nn.sigmoid(self._scores(x_BTD, self.shared_gate))
                shared_BTD *= gate_BT1.astype(x_BTD.dtype)
            out_BTD += shared_BTD
        return out_BTD, balance(scores_BTE, affinity_BTE, assigned, bias_E, moe, dropped)

    def _scores(self, x_BTD: jax.Array, w_DE: nnx.Param) -> jax.Array:
        return jnp.einsum("BTD,DE->BTE", x_BTD.astype(jnp.float32), w_DE[...], precision="highest")

    def _experts(self, dtype: jnp.dtype) -> Experts:
        names = ["up", "down", *(["gate"] if self.config.gated else [])]
        if self.config.mlp_bias:
            names += [f"{name}_bias" for name in names if name != "down"]
        return Experts(**{name: getattr(self, name)[...].astype(dtype) for name in names})

    def _output_biases(self, assigned: Assignment, x_BTD: jax.Array) -> jax.Array:
        """(B, T, D): the weighted sum of the biases of the chosen experts' outputs."""
        weight_BTk = assigned.weight_BTk
        if assigned.rank_BTk is not None:  # a dropped assignment adds nothing
            assert self.moe.capacity_factor is not None
            kept_BTk = assigned.rank_BTk < slots_per_expert(self.moe, x_BTD.shape[1])
            weight_BTk = jnp.where(kept_BTk, weight_BTk, 0)
        chosen_BTkE = jax.nn.one_hot(assigned.expert_BTk, self.moe.experts, dtype=x_BTD.dtype)
        weight_BTE = jnp.einsum("BTk,BTkE->BTE", weight_BTk.astype(x_BTD.dtype), chosen_BTkE)
        return jnp.einsum("BTE,ED->BTD", weight_BTE, self.down_bias[...].astype(x_BTD.dtype))


def route(
    scores_BTE: jax.Array, bias_E: jax.Array | None, moe: MoeConfig
) -> tuple[Assignment, jax.Array]:
    """The k experts of each token and their weights, and the affinities (B, T, E) float32.

    The bias affects only the choice, not the weights (Wang et al. 2024, eq. 3).
    """
    if moe.router == "softmax":
        affinity_BTE = jax.nn.softmax(scores_BTE, axis=-1)
    else:
        affinity_BTE = jax.nn.sigmoid(scores_BTE)
    wanted_BTE = jax.lax.stop_gradient(affinity_BTE if bias_E is None else affinity_BTE + bias_E)
    if moe.top_groups < moe.groups:
        wanted_BTE = _in_best_groups(wanted_BTE, moe)
    _, expert_BTk = jax.lax.top_k(wanted_BTE, moe.top_k)
    weight_BTk = jnp.take_along_axis(affinity_BTE, expert_BTk, axis=-1)
    if moe.renormalise:
        weight_BTk /= jnp.sum(weight_BTk, axis=-1, keepdims=True)
    return Assignment(expert_BTk, moe.scale * weight_BTk), affinity_BTE


def _in_best_groups(wanted_BTE: jax.Array, moe: MoeConfig) -> jax.Array:
    """`wanted_BTE`, and -inf for experts outside of the token's `top_groups` groups.

    A group counts by its best expert (DeepSeek-V2, §2.2.2), or with sigmoids by the sum of its two
    best (DeepSeek-V3, §2.1.2).
    """
    wanted_BTge = wanted_BTE.reshape(*wanted_BTE.shape[:2], moe.groups, -1)
    best_BTge = jax.lax.top_k(wanted_BTge, 1 if moe.router == "softmax" else 2)[0]
    _, group_BTk = jax.lax.top_k(jnp.sum(best_BTge, axis=-1), moe.top_groups)
    chosen_BTg = jnp.any(group_BTk[..., None] == jnp.arange(moe.groups), axis=-2)
    return jnp.where(chosen_BTg[..., None], wanted_BTge, -jnp.inf).reshape(wanted_BTE.shape)


def balance(
    scores_BTE: jax.Array,
    affinity_BTE: jax.Array,
    assigned: Assignment,
    bias_E: jax.Array | None,
    moe: MoeConfig,
    dropped: jax.Array,
) -> Routing:
    """How even the choice of experts is, and the losses that make it more even.

    balance: E·Σ f_e·P_e, where f is the share of assignments and P the mean affinity, normalised to
    sum to 1 over the experts (Fedus et al. 2022, eq. 4-6; DeepSeek-V3, eq. 17-20 for sigmoids).

    The bias moves against the sign of f - 1/E (Wang et al. 2024, algorithm 1). The optimizer gets
    that difference as the gradient of the bias, through a loss term whose value is 0. So it is
    summed over micro-batches and devices like any other gradient.
    """
    E = moe.experts
    hits_BTkE = assigned.expert_BTk[..., None] == jnp.arange(E)
    load_E = jnp.mean(hits_BTkE.astype(jnp.float32), axis=(0, 1, 2))
    share_BTE = affinity_BTE / jnp.sum(affinity_BTE, axis=-1, keepdims=True)
    even = E * jnp.sum(load_E * jnp.mean(share_BTE, axis=(0, 1)))
    log_z_BT = jax.nn.logsumexp(scores_BTE, axis=-1)
    loss = moe.balance_loss * even + moe.z_loss * jnp.mean(log_z_BT**2)
    if bias_E is not None:
        loss += jnp.sum((bias_E - jax.lax.stop_gradient(bias_E)) * (load_E - 1 / E))
    return Routing(loss, even, load_E, dropped)
