"""Orbax's manager of checkpoints, where it would hold a run that fails or has to stop."""

from __future__ import annotations

import sys
import threading

import orbax.checkpoint as ocp
from orbax.checkpoint import multihost


class Barrier:
    """Orbax's own barrier, with one difference.

    When a process cannot write its part, Orbax lets it wait for the others before it raises the
    error, and they wait for it, until the deadline of the save. Here its error is raised at once.

    Attributes:
      failure: the error of this process's part of a save; None while there is none.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self._wait = multihost.get_barrier_sync_fn()
        self._saver = threading.get_ident()

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        in_flight = sys.exc_info()[1]
        if in_flight is not None and threading.get_ident() != self._saver:
            self.failure = in_flight
            raise in_flight
        self._wait(key=key, timeout_ms=timeout_ms)


class Manager(ocp.CheckpointManager):
    """Orbax's manager, which does not ask JAX when a preempted run stops.

    JAX stops all processes when they have asked equally often (`Stop.requested`). Orbax would ask
    with the training step for a count, and a resumed run would not stop for as many steps.
    """

    def reached_preemption(self, step: int) -> bool:
        return False
