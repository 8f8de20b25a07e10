"""The training state as one tree, first as shapes, then as arrays.

    {"params": parameters of the model, "opt": optax state, "guard": recent losses (`guard.py`),
     "step": int32 number of steps, including those that the guard skipped}

The same abstract state is used for sharded initialisation, restore, preflight and memory estimates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llm_jax.config import RunConfig, layers_of, require
from llm_jax.models.protocol import model_of
from llm_jax.parallel.mesh import parameter_sharding, sharding
from llm_jax.train.compiler import init_compiler_options
from llm_jax.train.guard import fresh_guard
from llm_jax.train.optimizers.make import make_optimizer
from llm_jax.train.optimizers.schedule_free import (
    is_masked,
    is_schedule_free,
    schedule_free_average,
)
from llm_jax.train.precision import as_matrices, as_moments, stored_like, wide

State = dict[str, Any]


def optimizer_of(config: RunConfig) -> optax.GradientTransformation:
    """The optimizer of a run."""
    moe = layers_of(config.model).moe
    balance_rate = moe.balance_rate if moe else 0.0
    specs = model_of(config.model).specs(config.model)
    return make_optimizer(config.optim, config.steps, specs, balance_rate)


def fresh_state(config: RunConfig, key: jax.Array) -> State:
    """A new state from `key`, in the dtypes of `optim`, without shardings."""
    specs = model_of(config.model).specs(config.model)
    params = model_of(config.model).init(config.model, key)
    opt = as_moments(optimizer_of(config).init(params), config.optim)
    params = as_matrices(params, config.optim.param_dtype, specs)
    step = jnp.zeros((), jnp.int32)
    return {"params": params, "opt": opt, "guard": fresh_guard(), "step": step}


def updated(config: RunConfig, grads: Any, state: State) -> tuple[Any, Any]:
    """Parameters and optimizer state after one update, computed in float32.

    The result has the dtypes of `state`, rounded stochastically where they are bfloat16.
    """
    params = wide(state["params"])
    updates, opt = optimizer_of(config).update(wide(grads), wide(state["opt"]), params)
    wide_result = optax.apply_updates(params, updates), opt
    return stored_like(wide_result, (state["params"], state["opt"]), config.seed, state["step"])


def judged_parameters(state: State) -> Any:
    """Parameters used for evaluation and export: for `schedule_free`, the average."""
    nodes = jax.tree.leaves(state["opt"], is_leaf=is_schedule_free)
    for node in filter(is_schedule_free, nodes):
        averaged = schedule_free_average(state["params"], node.b1, node.z)
        return jax.device_put(averaged, jax.tree.map(lambda leaf: leaf.sharding, state["params"]))
    return state["params"]


def abstract_state(config: RunConfig, mesh: Mesh) -> State:
    """The state as `ShapeDtypeStruct`s with their shardings on `mesh`. Nothing is allocated.

    Raises:
      ConfigError: a parameter has an unknown logical axis, or a mesh axis does not divide it.
    """
    tx = optimizer_of(config)
    shapes = jax.eval_shape(functools.partial(fresh_state, config), jax.random.key(0))
    replicated = sharding(mesh, ())
    by_param = jax.tree_util.tree_map_with_path(
        lambda path, leaf, spec: parameter_sharding(
            mesh, "/".join(entry.key for entry in path), leaf.shape, spec.axes
        ),
        shapes["params"],
        model_of(config.model).specs(config.model),
    )
    opt = optax.tree_utils.tree_map_params(
        tx,
        lambda leaf, where: leaf if is_masked(leaf) else _like(leaf, where),
        shapes["opt"],
        by_param,
        is_leaf=is_masked,
        transform_non_params=lambda _: replicated,
    )
    guard = jax.tree.map(lambda _: replicated, shapes["guard"])
    where = {"params": by_param, "opt": opt, "guard": guard, "step": replicated}
    return jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shapes, where
    )


def _like(leaf: jax.ShapeDtypeStruct, where: NamedSharding) -> NamedSharding:
    """The sharding of a parameter's moment: the same, or replicated for Adafactor's rows and
    columns."""
    sizes = [math.prod(where.mesh.shape[a] for a in _names(axes)) for axes in where.spec]
    fits = len(sizes) == leaf.ndim and all(
        size % shards == 0 for size, shards in zip(leaf.shape, sizes, strict=True)
    )
    return where if fits else NamedSharding(where.mesh, PartitionSpec())


def _names(axes: Any) -> tuple[str, ...]:
    return axes if isinstance(axes, tuple) else () if axes is None else (axes,)


def compile_init(config: RunConfig, mesh: Mesh) -> Callable[[], State]:
    """What makes a new state, compiled; each array is created on its devices.

    The values depend only on `config.seed` and the architecture, not on the mesh.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    make = jax.jit(
        functools.partial(fresh_state, config),
        out_shardings=shardings,
        compiler_options=init_compiler_options(mesh),
    )
    key = jax.random.key(config.seed)
    compiled = make.lower(key).compile()
    return lambda: compiled(key)


def init_state(config: RunConfig, mesh: Mesh) -> State:
    """A new state, made as by `compile_init`."""
    return compile_init(config, mesh)()


def check_optimizer(config: RunConfig, abstract: State) -> None:
    """Raises `ConfigError` for an optimizer of your own that averages: what reads the run without
    its code would take the trained parameters for the average."""
    nodes = jax.tree.leaves(abstract["opt"], is_leaf=is_schedule_free)
    require(
        config.optim.kind == "schedule_free" or not any(map(is_schedule_free, nodes)),
        f"optim.kind is {config.optim.kind!r}, whose state has an average as `schedule_free` has: "
        "use optim.kind = 'schedule_free', or return the update without the average.",
    )


def fresh_optimizer(config: RunConfig, abstract: State, params: Any) -> Any:
    """New optimizer state for `params` that come without one, with the shardings of `abstract`."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract["opt"])

    def init(params: Any) -> Any:
        return as_moments(optimizer_of(config).init(wide(params)), config.optim)

    return jax.jit(init, out_shardings=shardings)(params)
