"""Pipeline parallelism: stages of layers on the mesh axis `pipeline`, pieces of the batch in turn.

The stages are one vectorised computation whose stage axis is split over the mesh (GSPMD, Xu et al.
2021, §3.3). In each iteration every stage works on a different piece; then all results move to the
next stage. With several rounds, a piece passes through all stages more than once, each time through
other layers (circular, or interleaved, schedule; Narayanan et al. 2021, §2.2). Of M·R + S - 1
iterations, S - 1 are a bubble: in them a stage computes results that are thrown away.

Legend: S stages, R rounds, M pieces (M >= S), b sequences of a piece, l layers of a stage in a
round. Layer (r·S + s)·l + j is layer j of stage s in round r. Parameters are stored in the order of
layers, so checkpoints do not depend on the schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.parallel.mesh import constrain, constrain_leading


class Schedule(NamedTuple):
    """The shape of a pipeline: S stages, R rounds, M pieces."""

    stages: int
    rounds: int
    pieces: int

    @property
    def bubble(self) -> float:
        """Share of the iterations in which a stage is idle."""
        return (self.stages - 1) / (self.pieces * self.rounds + self.stages - 1)


def pipeline(
    stage: Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]],
    params: Any,
    x_BTD: jax.Array,
    along: Any,
    schedule: Schedule,
) -> tuple[jax.Array, Any]:
    """Runs all layers on `x_BTD`, stage by stage and round by round.

    Args:
      stage: (parameters of l layers, x_bTD, `along` of the piece) -> (x_bTD, measurements).
      params: leaves with leading axis L, or another multiple of R·S.
      along: constants of the sequences; leaves with leading axis B.

    Returns:
      x_BTD after the last layer, and the measurements of the stages, averaged over the pieces:
      their leaves get a leading axis R·S.
    """
    S, R, M = schedule
    weights = jax.tree.map(lambda leaf: _by_stage(leaf, R, S), params)
    along = jax.tree.map(lambda leaf: _pieces(leaf, M), along)
    first = jnp.arange(S)[:, None, None, None] == 0
    # Stage 0 reads its input here, and reads its own last output a round later. The parts of the
    # other stages are not used.
    queue_SMbTD = jnp.where(first[..., None], _pieces(x_BTD, M)[None], 0)
    vectorised = jax.vmap(stage, spmd_axis_name="pipeline")

    def iteration(carry: Any, t: jax.Array) -> Any:
        queue_SMbTD, x_SbTD = carry
        turn_S = t - jnp.arange(S)
        round_S = jnp.clip(turn_S // M, 0, R - 1)
        x_SbTD = jnp.where(first, _at(queue_SMbTD, t % M), x_SbTD)
        own = jax.tree.map(lambda leaf: jax.vmap(lambda w, r: w[r])(leaf, round_S), weights)
        with_piece = jax.tree.map(lambda leaf: constrain_leading(leaf[turn_S % M]), along)
        x_SbTD, measured = vectorised(own, _pinned(x_SbTD), with_piece)
        x_SbTD = _pinned(jnp.roll(x_SbTD, 1, axis=0))
        done = t - (S - 1)
        back_SbTD = jnp.where(done >= 0, x_SbTD, _at(queue_SMbTD, done % M))
        queue_SMbTD = jax.lax.dynamic_update_index_in_dim(queue_SMbTD, back_SbTD, done % M, 1)
        return (queue_SMbTD, x_SbTD), measured

    start = jnp.zeros_like(queue_SMbTD[:, 0])
    iterations = M * R + S - 1
    (queue_SMbTD, _), measured = jax.lax.scan(
        iteration, (queue_SMbTD, start), jnp.arange(iterations)
    )
    out_BTD = queue_SMbTD[0].swapaxes(0, 1).reshape(x_BTD.shape)
    # Iteration r·M + s + m processes piece m in stage s in round r.
    r, s, m = np.ogrid[:R, :S, :M]

    def collected(leaf: jax.Array) -> jax.Array:
        return jnp.mean(leaf[r * M + s + m, s], axis=2).reshape(R * S, *leaf.shape[2:])

    return out_BTD, jax.tree.map(collected, measured)


def _by_stage(leaf: jax.Array, R: int, S: int) -> jax.Array:
    """(L, …) → (S, R, l, …), with each stage's part on its devices."""
    return constrain_leading(leaf.reshape(R, S, -1, *leaf.shape[1:]).swapaxes(0, 1))


def _pieces(leaf: jax.Array, M: int) -> jax.Array:
    """(B, …) → (M, b, …), so that each device keeps the rows that it already holds."""
    return leaf.reshape(-1, M, *leaf.shape[1:]).swapaxes(0, 1)


def _at(queue_SMbTD: jax.Array, piece: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(queue_SMbTD, piece, 1, keepdims=False)


def _pinned(x_SbTD: jax.Array) -> jax.Array:
    return constrain(x_SbTD, "stage", "batch", "stream_length", "act_embed")
