"""Schedule-free AdamW (Defazio et al. 2024): an average over the steps in place of decay.

Gradients are taken at y, a mix of the iterate z and the average x. The parameters are y between
steps; x is evaluated and exported.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
import optax.contrib

from llm_jax.config import OptimConfig
from llm_jax.train.optimizers.common import decayed


def schedule_free(
    optim: OptimConfig, rate: optax.Schedule, specs: Any
) -> optax.GradientTransformation:
    # Adam without a first moment, whose place the average takes.
    direction = optax.scale_by_rms(optim.b2, optim.eps, eps_in_sqrt=False, bias_correction=True)
    step = decayed(direction, optim, rate, specs)
    # Schedule-free counts from 1, the schedule from 0.
    return optax.contrib.schedule_free(step, lambda count: rate(count - 1), optim.b1)


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
