"""The pure core: train_step(state, batch) -> (state, metrics), and evaluation of one batch.

A batch has the arrays of the run's objective (`Objective.arrays`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llm_jax.attention.ring import zigzag
from llm_jax.config import RunConfig
from llm_jax.data.batch import Array
from llm_jax.models.common.moe import Routing, summary
from llm_jax.models.protocol import Batch, model_of
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.mesh import axis_shards, constrain, sharding
from llm_jax.train.compiler import compiler_options
from llm_jax.train.guard import judge
from llm_jax.train.optimizers.make import gradient_norm
from llm_jax.train.optimizers.schedule import learning_rate
from llm_jax.train.precision import as_matrices
from llm_jax.train.state import State, abstract_state, updated

Metrics = dict[str, jax.Array]


def loss_fn(
    params: Any, batch: Batch, weight: jax.Array, config: RunConfig
) -> tuple[jax.Array, tuple[jax.Array, Routing | None]]:
    """The loss to differentiate: the objective's, plus the losses of the routers for this
    micro-batch.

    Args:
      weight: float32 scalar, 1/number of targets in the whole batch for a mean.

    Returns:
      float32 scalars: that loss, and the objective's own measure in nats; and the `Routing` of the
      layers with experts (None without experts).
    """
    objective = objective_of(config)
    if axis_shards("context") > 1:
        batch = in_zigzag(batch, objective.arrays)
    total, nats, routing = objective.loss(params, batch, weight, config)
    if routing is not None:
        total += jnp.sum(routing.loss) / config.compute.accumulate
    return total, (nats, routing)


def in_zigzag(batch: Batch, arrays: Mapping[str, Array]) -> Batch:
    """The batch with its sequences in the `zigzag` order of context parallelism.

    The loss does not depend on the order.
    """
    order_T = zigzag(batch["inputs"].shape[1], axis_shards("context"))

    def ordered(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        if "length" not in axes:
            return x
        place = tuple(order_T if axis == "length" else slice(None) for axis in axes)
        return constrain(x[place], *axes)

    return {name: ordered(x, arrays[name].axes) for name, x in batch.items()}


def gradients(params: Any, batch: Batch, config: RunConfig) -> tuple[Any, Metrics]:
    """Gradient of the mean loss over the batch's targets, summed over its micro-batches.

    The gradient has the dtypes of the parameters. With several micro-batches, or if
    `optim.grad_dtype` is bfloat16, the gradients of matrices have `optim.grad_dtype`.

    Returns:
      The gradient, and the metrics `loss` (nats per target, float32), `count` (targets, int32) and
      those of `moe.summary`, if the model has experts.
    """
    dtype, specs = config.optim.grad_dtype, model_of(config.model).specs(config.model)
    if dtype == "bfloat16":
        params = as_matrices(params, dtype, specs)
    count = jnp.sum(batch["targets"] >= 0)
    weight = 1.0 / jnp.maximum(count, 1).astype(jnp.float32)
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    parts = config.compute.accumulate
    if parts == 1:
        (_, measured), grads = value_and_grad(params, batch, weight, config)
        loss, routing = jax.tree.map(lambda leaf: leaf[None], measured)
    else:

        def micro(total: Any, piece: Batch) -> tuple[Any, Any]:
            (_, measured), grads = value_and_grad(params, piece, weight, config)
            return jax.tree.map(lambda a, b: (a + b).astype(a.dtype), total, grads), measured

        zeros = as_matrices(jax.tree.map(jnp.zeros_like, params), dtype, specs)
        arrays = objective_of(config).arrays
        pieces = {name: split_batch(x, parts, arrays[name].axes) for name, x in batch.items()}
        grads, (loss, routing) = jax.lax.scan(micro, zeros, pieces)
    metrics = {"loss": jnp.sum(loss), "count": count}
    return grads, metrics if routing is None else metrics | summary(routing)


def split_batch(x: jax.Array, parts: int, axes: tuple[str | None, ...]) -> jax.Array:
    """(B, …) → (parts, B/parts, …), so that each device keeps the rows that it already holds."""
    B, *rest = x.shape
    x = x.reshape(B // parts, parts, *rest).swapaxes(0, 1)
    return constrain(x, None, *axes)


def train_step(
    state: State, batch: Batch, config: RunConfig, token_bytes_V: np.ndarray
) -> tuple[State, Metrics]:
    """One optimizer step.

    Args:
      token_bytes_V: (V,) int32, UTF-8 bytes of each token.

    Returns:
      The next state, and scalar metrics. float32: `loss` (nats per target), `bits_per_byte` (if
      targets are text), `grad_norm` (before clipping), `learning_rate`. int32: `count` (targets in
      the batch), `skipped` (skipped steps so far) and `streak` (skipped steps in a row, up to this
      one; see `guard`). Models with experts add those of `moe.summary`.
    """
    grads, metrics = gradients(state["params"], batch, config)
    grad_norm = gradient_norm(grads, model_of(config.model).specs(config.model))
    take, guard = judge(state["guard"], metrics["loss"], grad_norm, config.optim.spike_limit)

    # A select between old and new arrays would keep a second copy of the parameters in memory.
    params, opt = jax.lax.cond(
        take, lambda: updated(config, grads, state), lambda: (state["params"], state["opt"])
    )
    # The schedule advances with updates, so skipped steps do not count.
    updates = state["step"] - state["guard"]["skipped"]
    if objective_of(config).of_text:
        nats = metrics["loss"] * metrics["count"]
        size = count_bytes(batch["targets"], token_bytes_V)
        metrics["bits_per_byte"] = nats / jnp.log(2.0) / size
    metrics |= {
        "grad_norm": grad_norm,
        "learning_rate": learning_rate(config.optim, config.steps)(updates),
        "skipped": guard["skipped"],
        "streak": guard["streak"],
    }
    return {"params": params, "opt": opt, "guard": guard, "step": state["step"] + 1}, metrics


def eval_step(
    params: Any, batch: Batch, config: RunConfig, token_bytes_V: np.ndarray
) -> tuple[Metrics, dict[str, jax.Array]]:
    """Sums over the batch: `nats` of all targets, `count` of targets, and `bytes` of their text
    (0 if they are not text); and the objective's `outputs`, if it has any.

    Matmuls are not quantised, because the exported model is not.
    """
    config = dataclasses.replace(
        config, compute=dataclasses.replace(config.compute, quantize="none")
    )
    objective = objective_of(config)
    _, (nats, _) = loss_fn(params, batch, jnp.ones((), jnp.float32), config)
    size = count_bytes(batch["targets"], token_bytes_V) if objective.of_text else jnp.zeros(())
    sums = {"nats": nats, "count": jnp.sum(batch["targets"] >= 0), "bytes": size}
    return sums, objective.outputs(params, batch, config) if objective.outputs else {}


def count_bytes(targets_BT: jax.Array, token_bytes_V: np.ndarray) -> jax.Array:
    """UTF-8 bytes of all targets, float32 scalar."""
    bytes_BT = jnp.where(targets_BT >= 0, jnp.asarray(token_bytes_V)[targets_BT], 0)
    return jnp.sum(bytes_BT).astype(jnp.float32)


def compile_train_step(
    config: RunConfig, mesh: Mesh, token_bytes_V: np.ndarray
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """`train_step`, compiled for `mesh` before its first call. It donates the state."""
    return lower_train_step(config, mesh, token_bytes_V).compile()


def lower_train_step(
    config: RunConfig, mesh: Mesh, token_bytes_V: np.ndarray
) -> jax.stages.Lowered:
    """`train_step`, traced for `mesh` and not yet compiled. The devices need not be attached."""
    state = abstract_state(config, mesh)
    jitted = jax.jit(
        lambda state, batch: train_step(state, batch, config, token_bytes_V),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), sharding(mesh, ())),
        compiler_options=compiler_options(config, mesh),
    )
    with jax.set_mesh(mesh):
        return jitted.lower(state, abstract_batch(config, mesh))


def compile_eval_step(
    config: RunConfig, mesh: Mesh, token_bytes_V: np.ndarray
) -> Callable[[Any, Batch], tuple[Metrics, dict[str, jax.Array]]]:
    """`eval_step`, compiled for `mesh`. Its batches have the shape of one micro-batch."""
    jitted = jax.jit(
        lambda params, batch: eval_step(params, batch, config, token_bytes_V),
        out_shardings=sharding(mesh, ()),
        compiler_options=compiler_options(config, mesh),
    )
    params = abstract_state(config, mesh)["params"]
    with jax.set_mesh(mesh):
        return jitted.lower(params, abstract_batch(config, mesh, micro=True)).compile()


def abstract_batch(
    config: RunConfig, mesh: Mesh, *, micro: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and shardings of a batch, or of one micro-batch if `micro`."""
    B = config.data.batch_size // (config.compute.accumulate if micro else 1)
    return {
        name: jax.ShapeDtypeStruct(
            array.shape(B, config.data.seq_len), array.dtype, sharding=sharding(mesh, array.axes)
        )
        for name, array in objective_of(config).arrays.items()
    }
