"""A mixture of experts is the weighted sum of its experts' MLPs, however it is computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import (
    compute_config,
    model_config,
    packed_batch,
    parameters,
    relative_error,
    run_config,
)

from llm_jax.config import ConfigError, ModelConfig, MoeConfig, from_json, to_json
from llm_jax.models.common.experts import ranks_within_expert
from llm_jax.models.common.moe import balance, route
from llm_jax.models.common.parameter import Spec
from llm_jax.models.common.stack import declare
from llm_jax.models.decoder.block import expert_block
from llm_jax.models.decoder.transformer import DECODER
from llm_jax.train.optimizers.make import make_optimizer
from llm_jax.train.step import gradients

T = 16
PLAIN = MoeConfig(experts=4, top_k=2, d_ff=24)
VARIANTS: dict[str, MoeConfig] = {
    "mixtral": PLAIN,
    "losses": MoeConfig(experts=4, top_k=1, d_ff=24, balance_loss=0.1, z_loss=0.1),
    "deepseek": MoeConfig(
        experts=8, top_k=3, d_ff=8, shared_d_ff=16, renormalise=False, scale=1.5, dense_layers=1
    ),
    "sigmoid": MoeConfig(experts=4, top_k=2, d_ff=24, router="sigmoid", balance_rate=0.01),
    "capacity": MoeConfig(experts=4, top_k=2, d_ff=24, capacity_factor=4.0),
    "deepseek_v2": MoeConfig(experts=8, top_k=2, d_ff=8, groups=4, top_groups=2, scale=2.0),
    "deepseek_v3": MoeConfig(
        experts=8, top_k=3, d_ff=8, groups=4, top_groups=2, router="sigmoid", balance_rate=0.01
    ),
    "qwen2": MoeConfig(experts=4, top_k=2, d_ff=8, shared_d_ff=16, shared_gate=True),
    "gpt_oss": PLAIN,
    "gpt_oss_capacity": replace(PLAIN, capacity_factor=4.0),
}
GPT_OSS = {"activation": "clamped_swiglu", "biases": ("mlp",)}


def model_of(moe: MoeConfig, **changes: Any) -> ModelConfig:
    return model_config(moe=moe, num_layers=3, **changes)


def dense_experts(moe: MoeConfig, block: Any, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Every expert for every token, weighted with 0 where it was not chosen; the router's losses.

    Written from the papers' formulas, without any function of the package.
    """
    scores_BTE = x_BTD @ block["router"] + block.get("router_bias", 0.0)
    if moe.router == "softmax":
        affinity_BTE = jnp.exp(scores_BTE) / jnp.exp(scores_BTE).sum(-1, keepdims=True)
    else:
        affinity_BTE = 1 / (1 + jnp.exp(-scores_BTE))
    wanted_BTE = jax.lax.stop_gradient(affinity_BTE + block.get("bias", 0.0))
    if moe.groups > 1:
        parts = jnp.sort(wanted_BTE.reshape(*x_BTD.shape[:2], moe.groups, -1), axis=-1)
        value_BTg = parts[..., -1] + (parts[..., -2] if moe.router == "sigmoid" else 0)
        place_BTg = jnp.argsort(jnp.argsort(-value_BTg, axis=-1), axis=-1)
        kept_BTE = jnp.repeat(place_BTg < moe.top_groups, moe.experts // moe.groups, axis=-1)
        wanted_BTE = jnp.where(kept_BTE, wanted_BTE, -1e9)
    order = jnp.argsort(jnp.argsort(-wanted_BTE, axis=-1), axis=-1)
    chosen_BTE = (order < moe.top_k).astype(jnp.float32)
    weight_BTE = affinity_BTE * chosen_BTE
    if moe.renormalise:
        weight_BTE /= weight_BTE.sum(-1, keepdims=True)

    def silu(a):
        return a / (1 + jnp.exp(-a))

    out_BTD = jnp.zeros_like(x_BTD)
    for e in range(moe.experts):
        gate, up = x_BTD @ block["gate"][e], x_BTD @ block["up"][e]
        if "up_bias" in block:  # gpt-oss's MLP, clamped and with biases
            gate = jnp.minimum(gate + block["gate_bias"][e], 7)
            up = jnp.clip(up + block["up_bias"][e], -7, 7)
            h = gate / (1 + jnp.exp(-1.702 * gate)) * (up + 1)
            y = h @ block["down"][e] + block["down_bias"][e]
        else:
            y = (silu(gate) * up) @ block["down"][e]
        out_BTD += moe.scale * weight_BTE[..., e : e + 1] * y
    if moe.shared_d_ff:
        shared = block["shared"]
        y = (silu(x_BTD @ shared["gate"]) * (x_BTD @ shared["up"])) @ shared["down"]
        if moe.shared_gate:
            y /= 1 + jnp.exp(-x_BTD @ block["shared_gate"])
        out_BTD += y
    load_E = chosen_BTE.mean((0, 1)) / moe.top_k
    share_E = (affinity_BTE / affinity_BTE.sum(-1, keepdims=True)).mean((0, 1))
    loss = moe.balance_loss * moe.experts * (load_E * share_E).sum()
    log_z_BT = jnp.log(jnp.exp(scores_BTE).sum(-1))
    return out_BTD, loss + moe.z_loss * (log_z_BT**2).mean()


def layer_of(model: ModelConfig, params: Any) -> tuple[Any, Any]:
    """The first layer of experts as a function of its parameters and x_BTD, and its parameters."""
    graphdef, _ = declare(expert_block, model)
    block = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), params["blocks"])

    def call(moe_params: Any, x_BTD: jax.Array) -> Any:
        return nnx.merge(graphdef, block | {"moe": moe_params}).moe(x_BTD)

    return call, block["moe"]


def hidden_states(B: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((B, T, 32)), jnp.float32)


@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=pytest.mark.slow if v == "mixtral" else ()) for v in VARIANTS],
)
def test_layer_equals_the_dense_evaluation(variant: str) -> None:
    moe = VARIANTS[variant]
    model = model_of(moe, **(GPT_OSS if variant.startswith("gpt_oss") else {}))
    call, params = layer_of(model, parameters(model))
    x_BTD, pull_BTD = hidden_states(2), hidden_states(2, seed=1)
    if variant.startswith("gpt_oss"):
        x_BTD *= 5  # beyond the clamp

    def ours(params: Any, x_BTD: jax.Array) -> Any:
        out_BTD, routing = call(params, x_BTD)
        return jnp.sum(out_BTD * pull_BTD) + routing.loss, routing.dropped

    def theirs(params: Any, x_BTD: jax.Array) -> Any:
        out_BTD, loss = dense_experts(moe, params, x_BTD)
        return jnp.sum(out_BTD * pull_BTD) + loss, jnp.zeros(())

    (found, dropped), grads = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(params, x_BTD)
    (wanted, _), right = jax.jit(jax.value_and_grad(theirs, (0, 1), has_aux=True))(params, x_BTD)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    assert dropped == 0
    for tree in (grads, right):  # that of the bias is no gradient, see `balance`
        tree[0].pop("bias", None)
    assert relative_error(grads, right) < 1e-4


@pytest.mark.slow
def test_losses_of_routers_join_the_model_s_and_are_reported() -> None:
    """The same gradient from one batch of two equal halves and from two micro-batches of them."""
    moe = replace(PLAIN, balance_loss=0.5, z_loss=0.1, every=2)
    model = model_of(moe)
    params = parameters(model)
    half = packed_batch(2, T)
    batch = {name: np.repeat(x, 2, axis=0) for name, x in half.items()}
    found = []
    for parts in (1, 2):
        config = run_config(model=model, compute=compute_config(accumulate=parts))
        found.append(jax.jit(lambda p, b, c=config: gradients(p, b, c))(params, batch))
    (grads, metrics), (grads_2, metrics_2) = found
    assert relative_error(grads_2, grads) < 1e-5
    for name in ("loss", "moe_balance", "moe_max_load", "moe_dropped"):
        assert float(metrics_2[name]) == pytest.approx(float(metrics[name]), rel=1e-5)
    assert metrics["moe_dropped"] == 0
    assert 1 <= metrics["moe_max_load"] <= 2
    router = np.abs(grads["blocks"]["moe"]["router"]).max(axis=(1, 2))
    assert router.shape == (1,) and router.min() > 0


def scores_of(seed: int, E: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((2, T, E)), jnp.float32)


def routed(scores_BTE: jax.Array, moe: MoeConfig, bias_E: Any = None) -> Any:
    assigned, affinity_BTE = route(scores_BTE, bias_E, moe)
    return balance(scores_BTE, affinity_BTE, assigned, bias_E, moe, jnp.zeros(()))


def test_uniform_router_has_the_balance_loss_of_equation_4() -> None:
    """f_e = P_e = 1/E give alpha·E·Σ 1/E² = alpha, whatever k."""
    even_BTE = jnp.broadcast_to(1e-3 * jnp.eye(4)[jnp.arange(T) % 4], (2, T, 4))
    moe = MoeConfig(experts=4, top_k=1, d_ff=8, balance_loss=0.01)
    found = routed(even_BTE, moe)
    assert float(found.loss) == pytest.approx(0.01, rel=1e-5)
    assert found.load_E.tolist() == [0.25] * 4
    # All tokens to one expert: f = (1, 0, 0, 0), P = (p, …), loss alpha·4·p.
    one_BTE = jnp.broadcast_to(jnp.array([3.0, 0, 0, 0]), (2, T, 4))
    p = np.exp(3) / (np.exp(3) + 3)
    assert float(routed(one_BTE, moe).loss) == pytest.approx(0.01 * 4 * p, rel=1e-5)


def test_z_loss_is_the_mean_square_of_log_z() -> None:
    moe = MoeConfig(experts=4, top_k=1, d_ff=8, z_loss=0.5)
    found = float(routed(jnp.full((2, T, 4), 2.0), moe).loss)
    assert found == pytest.approx(0.5 * (2 + np.log(4)) ** 2, rel=1e-5)


@pytest.mark.slow
def test_bias_takes_part_in_the_choice_only_and_moves_against_the_load() -> None:
    moe = MoeConfig(experts=4, top_k=2, d_ff=8, router="sigmoid", balance_rate=0.01)
    scores_BTE, bias_E = scores_of(0, 4), jnp.array([-9.0, 0.0, 0.0, 0.0])
    assigned, affinity_BTE = route(scores_BTE, bias_E, moe)
    assert int(assigned.expert_BTk.min()) == 1
    chosen = jnp.take_along_axis(affinity_BTE, assigned.expert_BTk, axis=-1)
    assert jnp.allclose(assigned.weight_BTk, chosen / chosen.sum(-1, keepdims=True))

    slope_E = jax.grad(lambda b: routed(scores_BTE, moe, b).loss)(bias_E)
    assert jnp.allclose(slope_E, routed(scores_BTE, moe, bias_E).load_E - 0.25)
    params, specs = {"bias": bias_E}, {"bias": Spec(("balance",), "balance")}
    tx = make_optimizer(run_config().optim, 10, specs, moe.balance_rate)
    updates, _ = tx.update({"bias": slope_E}, tx.init(params), params)
    assert jnp.allclose(updates["bias"], -0.01 * jnp.sign(slope_E))
    assert updates["bias"][0] > 0


def test_tokens_queue_in_their_order() -> None:
    expert_BTk = jnp.array([[[0, 1], [0, 2], [1, 0]]])
    assert ranks_within_expert(expert_BTk).tolist() == [[[0, 0], [1, 0], [1, 2]]]


def test_dropped_assignments_are_counted_and_do_nothing() -> None:
    """Router of zeros: all tokens choose experts 0 and 1, which have slots for half of them."""
    model = model_config(moe=replace(PLAIN, capacity_factor=1.0), num_layers=1)
    call, params = layer_of(model, parameters(model))
    out_BTD, routing = jax.jit(call)(params | {"router": 0 * params["router"]}, hidden_states(1))
    assert routing.dropped == 0.5
    assert routing.load_E.tolist() == [0.5, 0.5, 0, 0]
    used_T = np.abs(np.asarray(out_BTD)).max(axis=-1)[0] > 0
    assert used_T.tolist() == [True] * 8 + [False] * 8


@pytest.mark.parametrize("capacity_factor", [None, 0.5])
def test_no_token_depends_on_a_later_one(capacity_factor: float | None) -> None:
    model = model_config(moe=replace(PLAIN, capacity_factor=capacity_factor), num_layers=1)
    call, params = layer_of(model, parameters(model))
    x_BTD = hidden_states(1)
    other_BTD = x_BTD.at[:, 8:].set(hidden_states(1, seed=2)[:, 8:])
    layer = jax.jit(lambda x_BTD: call(params, x_BTD)[0])
    out_BTD, changed_BTD = layer(x_BTD), layer(other_BTD)
    assert np.allclose(out_BTD[:, :8], changed_BTD[:, :8], atol=1e-6)
    assert not np.allclose(out_BTD[:, 8:], changed_BTD[:, 8:], atol=1e-2)


def test_stacks_of_layers_with_and_without_experts() -> None:
    moe = MoeConfig(experts=4, top_k=2, d_ff=24, dense_layers=1, every=2)
    model = model_config(moe=moe, num_layers=6)
    assert model.moe_layers == (False, False, True, False, True, False)
    assert DECODER.layout(model).stacks == {"blocks": [2, 4], "dense_blocks": [0, 1, 3, 5]}
    assert from_json(to_json(model), ModelConfig) == model


@pytest.mark.slow
def test_mixed_layers_scanned_unrolled_and_recomputed() -> None:
    moe = MoeConfig(experts=4, top_k=2, d_ff=24, dense_layers=1, every=2, balance_loss=0.1)
    model = model_config(moe=moe, num_layers=6, sliding_window=4, window_pattern="LG")
    params, found = parameters(model), []
    for changes in ({}, {"scan_layers": False}, {"remat": "full"}, {"remat": "dots"}):
        config = run_config(model=model, compute=compute_config(**changes))
        found.append(jax.jit(lambda p, b, c=config: gradients(p, b, c))(params, packed_batch(2, T)))
    for grads, metrics in found[1:]:
        assert float(metrics["loss"]) == pytest.approx(float(found[0][1]["loss"]), rel=1e-6)
        assert relative_error(grads, found[0][0]) < 1e-5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"top_k": 5}, "model.moe.top_k is 5, more than model.moe.experts = 4"),
        ({"d_ff": 0}, "model.moe.d_ff is 0: it must be above 0"),
        ({"balance_loss": -1.0}, "model.moe.balance_loss is -1.0: it must not be negative"),
        ({"capacity_factor": 0.0}, "model.moe.capacity_factor is 0.0: it must be above 0"),
        ({"dense_layers": 3}, "none of the 3 layers has experts"),
        ({"groups": 3}, "model.moe.groups is 3, which does not divide model.moe.experts = 4"),
        ({"groups": 2, "top_groups": 3}, "top_groups is 3, more than model.moe.groups = 2"),
        ({"groups": 4, "top_groups": 1}, "top_k is 2, but 1 of 4 groups have only 1 experts"),
        ({"groups": 4, "top_groups": 2, "router": "sigmoid"}, "leaves one expert in each"),
        ({"shared_gate": True}, "model.moe.shared_gate is True, which requires shared experts"),
    ],
)
def test_experts_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        model_of(MoeConfig(**({"experts": 4, "top_k": 2, "d_ff": 24} | changes)))
    assert words in str(error.value)
