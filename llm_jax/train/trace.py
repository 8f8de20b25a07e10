"""A profile of a few steps when SIGUSR2 asks for one, for TensorBoard or xprof."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import jax

STEPS = 5


class Trace:
    """Writes `<out>/profile/`; with several processes, of those that got the signal."""

    def __init__(self, out: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = out / "profile", say
        self._asked = False
        self._until: int | None = None
        self._before = signal.signal(signal.SIGUSR2, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def before(self, step: int, state: Any) -> None:
        """Called before `step` is dispatched; begins or ends the profile there.

        Args:
          state: what the step before will have made; its end is waited for.
        """
        if self._until is None and self._asked:
            self._asked, self._until = False, step + STEPS
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
        elif step == self._until:
            jax.block_until_ready(state)
            self._end(step)

    def _end(self, step: int) -> None:
        self._until = None
        jax.profiler.stop_trace()
        self._say(f"Profile of the steps before step {step} in {self._folder}.")

    def close(self, step: int) -> None:
        if self._until is not None:
            self._end(step)
        signal.signal(signal.SIGUSR2, self._before)
