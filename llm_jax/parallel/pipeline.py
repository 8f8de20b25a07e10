"""Pipeline parallelism: groups of layers on the mesh axis `pipeline`, pieces of the batch in turn.

The stages are one vectorised computation whose stage axis is split over the mesh (GSPMD, Xu et al.
2021, §3.3): each iteration, every stage works on another piece, then all results move on by one
stage. With several rounds a piece goes round all stages more than once, each time through other
layers (circular, or interleaved, schedule; Narayanan et al. 2021, §2.2): of M·R + S - 1
iterations S - 1 are a bubble, in which stages compute what is thrown away.

Legend: S stages, R rounds, M pieces (M >= S), b sequences of a piece, l layers of a stage in a
round. Layer (r·S + s)·l + j is the j-th of stage s in round r; parameters are stored in the order
of layers, so that checkpoints do not depend on the schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.parallel.mesh import constrain, constrain_leading


class Schedule(NamedTuple):
    stages: int
    rounds: int
    pieces: int

    @property
    def bubble(self) -> float:
        """Share of the iterations that a stage has nothing to do in."""
        return (self.stages - 1) / (self.pieces * self.rounds + self.stages - 1)


def pipeline(
    stage: Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]],
    params: Any,
    x_BTD: jax.Array,
    along: Any,
    schedule: Schedule,
) -> tuple[jax.Array, Any]:
    """All layers over `x_BTD`, stage by stage and round by round.

    Args:
      stage: (parameters of l layers, x_bTD, along of the piece) -> (x_bTD, what it found).
      params: leaves with leading axis L, or another multiple of R·S.
      along: what belongs to the sequences and does not change; leaves with leading axis B.

    Returns:
      x_BTD after the last layer, and what the stages found, averaged over the pieces: leaves with
      leading axes R·S, then what a stage's leaf had.
    """
    S, R, M = schedule
    weights = jax.tree.map(lambda leaf: _by_stage(leaf, R, S), params)
    along = jax.tree.map(lambda leaf: _pieces(leaf, M), along)
    first = jnp.arange(S)[:, None, None, None] == 0
    # What stage 0 reads and, a round later, has written back; the other stages' parts are not used.
    queue_SMbTD = jnp.where(first[..., None], _pieces(x_BTD, M)[None], 0)
    vectorised = jax.vmap(stage, spmd_axis_name="pipeline")

    def iteration(carry: Any, t: jax.Array) -> Any:
        queue_SMbTD, x_SbTD = carry
        turn_S = t - jnp.arange(S)
        round_S = jnp.clip(turn_S // M, 0, R - 1)
        x_SbTD = jnp.where(first, _at(queue_SMbTD, t % M), x_SbTD)
        own = jax.tree.map(lambda leaf: jax.vmap(lambda w, r: w[r])(leaf, round_S), weights)
        with_piece = jax.tree.map(lambda leaf: constrain_leading(leaf[turn_S % M]), along)
        x_SbTD, found = vectorised(own, _pinned(x_SbTD), with_piece)
        x_SbTD = _pinned(jnp.roll(x_SbTD, 1, axis=0))
        done = t - (S - 1)
        back_SbTD = jnp.where(done >= 0, x_SbTD, _at(queue_SMbTD, done % M))
        queue_SMbTD = jax.lax.dynamic_update_index_in_dim(queue_SMbTD, back_SbTD, done % M, 1)
        return (queue_SMbTD, x_SbTD), found

    start = jnp.zeros_like(queue_SMbTD[:, 0])
    iterations = M * R + S - 1
    (queue_SMbTD, _), found = jax.lax.scan(iteration, (queue_SMbTD, start), jnp.arange(iterations))
    out_BTD = queue_SMbTD[0].swapaxes(0, 1).reshape(x_BTD.shape)
    # Piece m is at stage s in round r in iteration r·M + s + m.
    r, s, m = np.ogrid[:R, :S, :M]
    collect = lambda leaf: jnp.mean(leaf[r * M + s + m, s], axis=2)  # noqa: E731
    found = jax.tree.map(lambda leaf: collect(leaf).reshape(R * S, *leaf.shape[2:]), found)
    return out_BTD, found


def _by_stage(leaf: jax.Array, R: int, S: int) -> jax.Array:
    """(L, …) → (S, R, l, …), each stage's on its devices."""
    return constrain_leading(leaf.reshape(R, S, -1, *leaf.shape[1:]).swapaxes(0, 1))


def _pieces(leaf: jax.Array, M: int) -> jax.Array:
    """(B, …) → (M, b, …) in which each device keeps the rows that it holds already."""
    return leaf.reshape(-1, M, *leaf.shape[1:]).swapaxes(0, 1)


def _at(queue_SMbTD: jax.Array, piece: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(queue_SMbTD, piece, 1, keepdims=False)


def _pinned(x_SbTD: jax.Array) -> jax.Array:
    return constrain(x_SbTD, "stage", "batch", "stream_length", "act_embed")
