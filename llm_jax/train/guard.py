"""The guard: decides on the device whether the gradient of a step is used.

Two kinds of step are skipped. They leave parameters, moments and their counts unchanged, bit for
bit:

- the loss or the norm of the gradient is NaN or infinite;
- a spike: the loss is above the median of the last `WINDOW` accepted losses by more than
  `optim.spike_limit` robust standard deviations. One is 1.4826 times the median absolute deviation
  (Rousseeuw & Croux 1993). A single outlier changes a mean and a standard deviation, but not these.

PaLM skips the batches of a spike (Chowdhery et al. 2022 §5.1). OLMo 2 decides it in the step, from
earlier losses (OLMo team 2025 §3). The window is part of the state and of its checkpoints, so a
resumed run skips the same steps as an uninterrupted one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

WINDOW = 128
# Very similar batches have almost no deviation, so it counts as at least 1% of the loss.
LEAST_DEVIATION = 0.01

Guard = dict[str, jax.Array]


def fresh_guard() -> Guard:
    """A new guard: `losses`, float32 (WINDOW,), the last accepted losses; int32 scalars `accepted`
    and `skipped` (steps since the start) and `streak` (skipped steps in a row, up to the newest).
    """
    counts = {name: jnp.zeros((), jnp.int32) for name in ("accepted", "skipped", "streak")}
    return {"losses": jnp.zeros((WINDOW,), jnp.float32)} | counts


def judge(
    guard: Guard, loss: jax.Array, grad_norm: jax.Array, spike_limit: float | None
) -> tuple[jax.Array, Guard]:
    """Whether to take the step (bool scalar), and the guard after it.

    Args:
      loss: float32 scalar, nats per target.
      grad_norm: float32 scalar.
      spike_limit: in robust standard deviations; it applies once the window is full. None: only NaN
        and infinity are skipped.
    """
    take = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    if spike_limit is not None:
        full = guard["accepted"] >= WINDOW
        take &= ~(full & (loss > spike_bound(guard["losses"], spike_limit)))
    place = guard["accepted"] % WINDOW
    return take, {
        "losses": jnp.where(take, guard["losses"].at[place].set(loss), guard["losses"]),
        "accepted": guard["accepted"] + take,
        "skipped": guard["skipped"] + ~take,
        "streak": jnp.where(take, 0, guard["streak"] + 1),
    }


def spike_bound(losses: jax.Array, limit: float) -> jax.Array:
    """The loss that is `limit` robust standard deviations above the median of `losses` (W,)."""
    median = jnp.median(losses)
    deviation = 1.4826 * jnp.median(jnp.abs(losses - median))
    return median + limit * jnp.maximum(deviation, LEAST_DEVIATION * median)
