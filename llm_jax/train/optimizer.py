"""Optimizers from optax, with the config's schedule, clipping and weight decay mask."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from llm_jax.config import OptimConfig
from llm_jax.models.common.parameter import Role, Spec

DECAYING: tuple[Role, ...] = ("matrix", "table", "router")
"""Roles of the parameters that weight decay applies to: not norms, biases or positions."""


def learning_rate(optim: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate of updates 0, 1, … steps-1.

    * cosine: linear warm-up, then half a cosine to `final_fraction` of the peak (Loshchilov &
      Hutter 2017).
    * wsd: linear warm-up, constant, then linear decay to `final_fraction` of the peak (Hu et al.
      2024, MiniCPM).
    * constant: linear warm-up, then the peak.
    """
    peak, final = optim.learning_rate, optim.learning_rate * optim.final_fraction
    warmup = optim.warmup(steps)
    # Update 0 has a learning rate above 0. The warm-up reaches the peak at update `warmup`.
    parts = [optax.linear_schedule(peak / (warmup + 1), peak, warmup)]
    if optim.schedule == "cosine":
        parts.append(
            optax.cosine_decay_schedule(peak, max(steps - warmup, 1), optim.final_fraction)
        )
        return optax.join_schedules(parts, [warmup])
    if optim.schedule == "constant":
        return optax.join_schedules([*parts, optax.constant_schedule(peak)], [warmup])
    decay = max(round(steps * optim.decay_fraction), 1)
    start = max(steps - decay, warmup)
    parts += [optax.constant_schedule(peak), optax.linear_schedule(peak, final, decay)]
    return optax.join_schedules(parts, [warmup, start])


def decay_mask(specs: Any) -> Any:
    """True for the leaves with weight decay."""
    return jax.tree.map(lambda spec: spec.role in DECAYING, specs)


def gradient_norm(grads: Any, specs: Any) -> jax.Array:
    """Global norm of the gradient, float32 scalar, without the experts' balancing biases, whose
    "gradient" is not a derivative of the loss."""
    norms = jax.tree.map(
        lambda spec, grad: (
            0.0 if spec.role == "balance" else jnp.sum(grad.astype(jnp.float32) ** 2)
        ),
        specs,
        grads,
    )
    return jnp.sqrt(sum(jax.tree.leaves(norms)))


def make_optimizer(
    optim: OptimConfig, steps: int, specs: Any, balance_rate: float = 0.0
) -> optax.GradientTransformation:
    """The whole update: clip by global norm, compute a direction, add weight decay, scale by the
    schedule.

    Args:
      steps: optimizer steps of the run.
      specs: tree of the parameters' `Spec`s.
      balance_rate: step size of the experts' balancing biases, which move against the sign of their
        gradient (Wang et al. 2024, algorithm 1); 0 if there are none.
    """
    rate = learning_rate(optim, steps)
    step = optax.chain(
        direction(optim, specs),
        optax.add_decayed_weights(optim.weight_decay, decay_mask(specs)),
        optax.scale_by_learning_rate(rate),
    )
    if optim.kind == "schedule_free":
        # Schedule-free counts from 1, the schedule from 0.
        step = optax.contrib.schedule_free(step, lambda count: rate(count - 1), optim.b1)
    optimizer = optax.chain(optax.clip_by_global_norm(optim.clip_norm), step)
    if not balance_rate:
        return optimizer
    balance = optax.chain(optax.scale_by_sign(), optax.scale(-balance_rate))
    labels = jax.tree.map(lambda spec: "balance" if spec.role == "balance" else "weights", specs)
    return optax.partition({"weights": optimizer, "balance": balance}, labels)


def direction(optim: OptimConfig, specs: Any) -> optax.GradientTransformation:
    """The update before the learning rate: about 1 per element, or 0.2 for matrices with `muon`."""
    adam = optax.scale_by_adam(optim.b1, optim.b2, optim.eps)
    if optim.kind == "adamw":
        return adam
    if optim.kind == "schedule_free":  # Adam without a first moment
        return optax.scale_by_rms(optim.b2, optim.eps, eps_in_sqrt=False, bias_correction=True)
    if optim.kind == "adafactor":
        return optax.chain(
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.ema(optim.b1),
        )
    labels = jax.tree.map(lambda spec: "matrices" if spec.role == "matrix" else "rest", specs)
    numbers = jax.tree.map(lambda spec: muon_axes(spec) or optax.MaskedNode(), specs)
    muon = optax.chain(
        optax.contrib.scale_by_muon(weight_dimension_numbers=numbers),
        optax.stateless(lambda updates, _: jax.tree.map(_like_adam, updates, numbers)),
    )
    return optax.partition({"matrices": muon, "rest": adam}, labels)


def is_schedule_free(node: Any) -> bool:
    """Whether a node of the optimizer state is the state of `schedule_free`."""
    return isinstance(node, optax.contrib.ScheduleFreeState)


def is_masked(node: Any) -> bool:
    """Whether a node stands for a parameter that another part of the optimizer updates."""
    return isinstance(node, optax.MaskedNode)


@jax.jit
def schedule_free_average(params: Any, b1: jax.Array, z: Any) -> Any:
    """x, the average that is evaluated, from the trained y (`params`) and the iterate z.

    x = (y - (1 - b1)·z)/b1. Parameters that are masked in z (balancing biases) stay as they are.
    """
    own = jax.tree.map(lambda z, y: z if is_masked(z) else y, z, params, is_leaf=is_masked)
    state = optax.contrib.ScheduleFreeState(b1, None, None, None, None, z)
    x = optax.contrib.schedule_free_eval_params(state, own)
    return jax.tree.map(lambda x, y: y if is_masked(x) else x, x, params, is_leaf=is_masked)


def muon_axes(spec: Spec) -> optax.contrib.MuonDimensionNumbers | None:
    """(input axes, output axes) of a matrix in a block; None for all other parameters.

    Each layer and each expert is a separate matrix. All heads of a projection are one matrix.
    """
    if spec.role != "matrix":
        return None
    axes = spec.axes
    width = [i for i, name in enumerate(axes) if name in ("embed", "expert_embed")]
    other = tuple(
        i for i, name in enumerate(axes) if name not in ("layers", "experts") and i not in width
    )
    sides = (tuple(width), other) if width[0] < other[0] else (other, tuple(width))
    return optax.contrib.MuonDimensionNumbers(*sides)


def _like_adam(update: jax.Array, numbers: optax.contrib.MuonDimensionNumbers) -> jax.Array:
    """Scales to a root mean square of 0.2, as AdamW's updates have (Liu et al. 2025, eq. 4)."""
    sides = [math.prod(update.shape[i] for i in axes) for axes in numbers]
    return 0.2 * math.sqrt(max(sides)) * update
