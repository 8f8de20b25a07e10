"""A profile of a few steps, for TensorBoard or xprof: the steps of `profile` in the config, and the
next five steps after the signal SIGUSR2."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax

from llm_jax.config import RunConfig
from llm_jax.train.stop import in_main_thread

STEPS = 5


class Trace:
    """Writes profiles to `<out>/profile/`. A signal profiles only the processes that got it."""

    def __init__(self, config: RunConfig, say: Callable[[str], None]) -> None:
        self._folder, self._say = f"{config.out}/profile", say
        self._planned = config.profiled_steps
        self._asked = False
        self._open: tuple[int, int] | None = None
        """First and last step of the open profile."""
        self._hears = in_main_thread()
        if self._hears:
            self._before = signal.signal(signal.SIGUSR2, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def before(self, step: int, state: Any) -> None:
        """Ends or begins a profile, if due. Called before `step` is dispatched.

        Args:
          state: the result of the previous step. A profile waits for it.
        """
        if self._open and step > self._open[1]:
            jax.block_until_ready(state)
            self._end(step - 1)
        if self._open:
            return
        if self._planned and self._planned[0] <= step <= self._planned[1]:
            self._begin((step, self._planned[1]), state)
        elif self._asked:
            self._begin((step, step + STEPS - 1), state)

    def _begin(self, steps: tuple[int, int], state: Any) -> None:
        self._asked, self._open = False, steps
        jax.block_until_ready(state)
        jax.profiler.start_trace(self._folder)

    def _end(self, step: int) -> None:
        assert self._open is not None
        jax.profiler.stop_trace()
        self._say(f"Profile of steps {self._open[0]} to {step} in {self._folder}.")
        self._open = None

    def close(self, step: int) -> None:
        """Ends a profile that is still open after `step`, the last one."""
        if self._open:
            self._end(step)
        if self._hears:
            signal.signal(signal.SIGUSR2, self._before)
