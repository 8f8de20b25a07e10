"""Stopping on request: after Ctrl-C or SIGTERM, the run ends its step, saves and exits."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from llm_jax.config.exits import INTERRUPTED, PREEMPTED

NOTICED = 1.5
"""Seconds until JAX, which looks once a second, notices a SIGTERM and has told all processes. They
stop at the second step after that at the latest."""


class Stop:
    """Handles SIGTERM and SIGINT inside its context. A second SIGINT ends the process at once.

    A SIGINT that was ignored when the process began stays ignored. Python delivers signals only to
    the main thread. In another thread, this handles no signal and prints that.
    """

    def __init__(self, grace: float | None = None) -> None:
        """`grace`: seconds from SIGTERM to the end of the process, if something tells them."""
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._polls = 0
        self._grace = grace
        now = time.monotonic()
        self._polled = collections.deque([now, now, now], maxlen=3)
        self._told: float | None = None

    def __enter__(self) -> Stop:
        if not in_main_thread():
            print(
                "Training does not run in the main thread: the program that started it must handle "
                "SIGTERM, Ctrl-C and SIGUSR2.",
                file=sys.stderr,
            )
        elif jax.process_count() == 1:  # else SIGTERM belongs to JAX's preemption service
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
            # In the background of a script, SIGINT is ignored: Ctrl-C is for the foreground.
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ask(self) -> None:
        """Stops as after one Ctrl-C. Only for runs of one process."""
        self.signal = self.signal or signal.SIGINT

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number
        self._told = self._told or time.monotonic()

    @contextlib.contextmanager
    def leaving_at_once(self) -> Iterator[None]:
        """Inside this context, before the first step, a signal ends the process at once.

        Python runs handlers between its own instructions, and a compilation of many minutes is a
        single one. But Python's C code writes the signal's number to a pipe, where a thread can
        read it. With several processes, the launcher's agent ends them instead.
        """
        if not self._before:
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writer)  # ends the thread

    def _listen(self, reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] in self._before:  # `_note` sets `signal`, to recognise a second Ctrl-C
                print("stopped before the first step: there is nothing to save", file=sys.stderr)
                sys.stderr.flush()
                os._exit(exit_code(number[0]))
        os.close(reader)

    def requested(self) -> bool:
        """Whether to stop now. All processes must call this equally often: they stop together."""
        if self.signal is not None and jax.process_count() > 1:
            return True
        self._polls += 1
        self._polled.append(time.monotonic())
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._polls):
            self.signal = self.signal or signal.SIGTERM
            self._told = self._polled[0] - NOTICED
        return self.signal is not None

    def left(self) -> float | None:
        """Seconds until the process will be ended; None if nothing tells, or it was not asked."""
        if self._grace is None or self._told is None:
            return None
        return self._grace - (time.monotonic() - self._told)

    @property
    def exit_code(self) -> int:
        return exit_code(self.signal)


def exit_code(number: int | None) -> int:
    return INTERRUPTED if number == signal.SIGINT else PREEMPTED


def in_main_thread() -> bool:
    """Whether this thread may set signal handlers."""
    return threading.current_thread() is threading.main_thread()
