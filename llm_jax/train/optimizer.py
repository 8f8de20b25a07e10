"""AdamW from optax, with the schedule, the clipping and the decay mask of the config."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from llm_jax.config import OptimConfig

# Logical axes of leaves that are not matrices: norms, biases and learned positions do not decay.
NO_DECAY = ("norm", "position")


def learning_rate(optim: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate of update number 0, 1, … steps-1.

    cosine: linear warm-up, then half a cosine to `final_fraction` of the peak (Loshchilov & Hutter
    2017). wsd: warm-up, constant, then linear to `final_fraction` (Hu et al. 2024, MiniCPM).
    """
    peak, final = optim.learning_rate, optim.learning_rate * optim.final_fraction
    warmup = optim.warmup_steps
    # The first update already moves: warm-up reaches the peak at update `warmup`.
    parts = [optax.linear_schedule(peak / (warmup + 1), peak, warmup)]
    if optim.schedule == "cosine":
        parts.append(
            optax.cosine_decay_schedule(peak, max(steps - warmup, 1), optim.final_fraction)
        )
        return optax.join_schedules(parts, [warmup])
    decay = max(round(steps * optim.decay_fraction), 1)
    start = max(steps - decay, warmup)
    parts += [optax.constant_schedule(peak), optax.linear_schedule(peak, final, decay)]
    return optax.join_schedules(parts, [warmup, start])


def decay_mask(logical_axes: Any) -> Any:
    """True for the leaves that weight decay applies to: matrices, by their logical axes.

    Biases of projections carry two or fewer logical axes besides "layers" and no "embed" axis.
    """

    def decays(axes: tuple[str, ...]) -> bool:
        return ("embed" in axes or "expert_embed" in axes) and not any(
            name in axes for name in NO_DECAY
        )

    return jax.tree.map(decays, logical_axes, is_leaf=is_axes)


def is_axes(leaf: Any) -> bool:
    """Whether a node of a tree of logical axes is a leaf of it."""
    return isinstance(leaf, tuple)


def gradient_norm(grads: Any, logical_axes: Any) -> jax.Array:
    """Global norm of what is differentiated: the balancing biases of experts are not."""
    norms = jax.tree.map(
        lambda axes, grad: 0.0 if "balance" in axes else jnp.sum(grad.astype(jnp.float32) ** 2),
        logical_axes,
        grads,
        is_leaf=is_axes,
    )
    return jnp.sqrt(sum(jax.tree.leaves(norms)))


def make_optimizer(
    optim: OptimConfig, steps: int, logical_axes: Any, balance_rate: float = 0.0
) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW with float32 moments (the dtype of the parameters).

    Args:
      balance_rate: step of the experts' balancing biases, which move against the sign of their
        gradient (Wang et al. 2024, algorithm 1); 0 where there are none.
    """
    adamw = optax.chain(
        optax.clip_by_global_norm(optim.clip_norm),
        optax.adamw(
            learning_rate(optim, steps),
            b1=optim.b1,
            b2=optim.b2,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            mask=decay_mask(logical_axes),
        ),
    )
    if not balance_rate:
        return adamw
    balance = optax.chain(optax.scale_by_sign(), optax.scale(-balance_rate))
    kind = lambda axes: "balance" if "balance" in axes else "weights"  # noqa: E731
    labels = jax.tree.map(kind, logical_axes, is_leaf=is_axes)
    return optax.partition({"weights": adamw, "balance": balance}, labels)
