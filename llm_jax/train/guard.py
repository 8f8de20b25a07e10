"""The guard: whether a step's gradient may enter the state, decided on the device before it does.

Two kinds of step leave parameters, moments and their counts as they were, bit for bit:

- the loss or the gradient's norm is NaN or infinite;
- a spike: the loss lies above the median of the last `WINDOW` accepted losses by more than
  `optim.spike_limit` robust standard deviations, 1.4826 times the median absolute deviation
  (Rousseeuw & Croux 1993). One outlier moves a mean and a standard deviation, but not these.

Skipping the batches of a spike is the cure of PaLM (Chowdhery et al. 2022 §5.1); doing it in the
step itself, from the losses before, that of OLMo 2 (OLMo team 2025 §3). The window is part of the
state and of its checkpoints, so that a resumed run skips what the unbroken one does.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

WINDOW = 128
# Batches that are all alike have no deviation to speak of: it counts as at least 1% of the loss.
LEAST_DEVIATION = 0.01

Guard = dict[str, jax.Array]


def fresh_guard() -> Guard:
    """`losses`: float32 (WINDOW,), the last accepted ones; int32 `accepted`, `skipped` steps since
    the start, and the `streak` of skipped ones that the newest step ends."""
    counts = {name: jnp.zeros((), jnp.int32) for name in ("accepted", "skipped", "streak")}
    return {"losses": jnp.zeros((WINDOW,), jnp.float32)} | counts


def judge(
    guard: Guard, loss: jax.Array, grad_norm: jax.Array, spike_limit: float | None
) -> tuple[jax.Array, Guard]:
    """Whether to take the step (bool scalar), and the guard after it.

    A spike needs a full window. `spike_limit` None looks for NaN and infinity alone.
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
