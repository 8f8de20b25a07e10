"""The learning rate of each update."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from llm_jax.config import OptimConfig


def learning_rate(optim: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate of updates 0, 1, … steps-1.

    * cosine: linear warm-up, then half a cosine to `final_fraction` of the peak (Loshchilov &
      Hutter 2017).
    * wsd: linear warm-up, constant, then linear decay to `final_fraction` of the peak (Hu et al.
      2024, MiniCPM).
    * constant: linear warm-up, then the peak.
    * inverse_sqrt: linear warm-up of w updates, then peak·√((w + 1)/(n + 1)) at update n (Vaswani
      et al. 2017, eq. 3).
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
    if optim.schedule == "inverse_sqrt":
        # A later schedule counts its updates from its own beginning.
        parts.append(lambda n: peak * jnp.sqrt((warmup + 1) / (n + warmup + 1)))
        return optax.join_schedules(parts, [warmup])
    decay = max(round(steps * optim.decay_fraction), 1)
    start = max(steps - decay, warmup)
    parts += [optax.constant_schedule(peak), optax.linear_schedule(peak, final, decay)]
    return optax.join_schedules(parts, [warmup, start])
