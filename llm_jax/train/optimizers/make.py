"""The whole update of a run: clipping, then the optimizer that `optim.kind` names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from llm_jax.config import OptimConfig
from llm_jax.config.extensions import load_part
from llm_jax.train.optimizers.schedule import learning_rate


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
    """Clips by the global norm, then updates as `optim.kind` says.

    Args:
      steps: optimizer steps of the run.
      specs: tree of the parameters' `Spec`s.
      balance_rate: step size of the experts' balancing biases, which move against the sign of their
        gradient (Wang et al. 2024, algorithm 1); 0 if there are none.
    """
    step = load_part("optim.kind", optim.kind)(optim, learning_rate(optim, steps), specs)
    optimizer = optax.chain(optax.clip_by_global_norm(optim.clip_norm), step)
    if not balance_rate:
        return optimizer
    balance = optax.chain(optax.scale_by_sign(), optax.scale(-balance_rate))
    labels = jax.tree.map(lambda spec: "balance" if spec.role == "balance" else "weights", specs)
    return optax.partition({"weights": optimizer, "balance": balance}, labels)
