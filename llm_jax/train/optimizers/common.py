"""What optimizers share: which parameters decay, and the steps after a direction."""

from __future__ import annotations

from typing import Any

import jax
import optax

from llm_jax.config import OptimConfig
from llm_jax.models.common.parameter import Role

DECAYING: tuple[Role, ...] = ("matrix", "table", "router")
"""Roles of the parameters that weight decay applies to: not norms, biases or positions."""


def decay_mask(specs: Any) -> Any:
    """True for the leaves with weight decay."""
    return jax.tree.map(lambda spec: spec.role in DECAYING, specs)


def decayed(
    direction: optax.GradientTransformation, optim: OptimConfig, rate: optax.Schedule, specs: Any
) -> optax.GradientTransformation:
    """The whole update along `direction`: decoupled weight decay, then the learning rate."""
    return optax.chain(
        direction,
        optax.add_decayed_weights(optim.weight_decay, decay_mask(specs)),
        optax.scale_by_learning_rate(rate),
    )


def adam(optim: OptimConfig) -> optax.GradientTransformation:
    """Adam's direction: about 1 per element."""
    return optax.scale_by_adam(optim.b1, optim.b2, optim.eps)
