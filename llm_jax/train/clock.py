"""Wall time of a start by phase, for goodput, and a heartbeat.

The heartbeat is `status.<process>.json` in the run's folder, with the phase and the step. The
launcher's watchdog reads it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import llm_jax
from llm_jax.runs.files import write_text
from llm_jax.runs.starts import Start, accounted, goodput, read_starts, write_starts

STATUS_SECONDS = 1.0
# On slow storage, writes are less frequent, so that they take at most 2% of the time.
WRITES_APART = 50
SELDOMEST = 30.0
STATUS_PER_SECOND = 32
"""Of all processes together: a bucket takes no more than a thousand writes per second."""


class Clock:
    """Seconds per phase since the clock was created. Time outside any phase counts as `step`."""

    def __init__(self, out: Path, process: int, processes: int = 1) -> None:
        self._start = time.perf_counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._out, self._process = out, process
        self._least = max(STATUS_SECONDS, processes / STATUS_PER_SECOND)
        self._written, self._every = 0.0, self._least
        self._phase, self._step = "startup", 0
        self._opened: float | None = None
        """Start of the open phase; None between phases."""
        self._before: list[Start] | None = None
        """Earlier starts of the run; None until `begin`."""
        self._record = Start(time.time(), time.time())

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time inside the context as phase `name`."""
        before, self._opened = self._phase, time.perf_counter()
        self._enter(name)
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - self._opened
            self._opened = None
            self._enter(before)

    def begin(self, step: int, devices: str) -> None:
        """Ends the start-up of a run that resumes from `step` on `devices`, in words."""
        self._record.devices = devices
        self._record.versions = {"llm-jax": llm_jax.__version__, "jax": version("jax")}
        self.seconds["startup"] += self.stepping
        self._before = read_starts(self._out)
        self._step = self._record.first = step
        self._enter(self._phase)

    def close(self) -> None:
        """Writes the files a last time."""
        self._enter(self._phase)

    def stepped(self, step: int) -> None:
        """Records that `step` was dispatched. The files are rewritten once per second, or less
        often on slow storage and by many processes."""
        self._step = step
        if self._phase != "step" or time.perf_counter() - self._written > self._every:
            self._enter("step")

    def _enter(self, phase: str) -> None:
        self._phase, self._written = phase, time.perf_counter()
        if self._out.is_dir():  # before the run creates its folder, there is no place to write
            record = {"phase": phase, "step": self._step, "time": time.time()}
            status = self._out / f"status.{self._process}.json"
            write_text(status, json.dumps(record), durable=False)
            if self._process == 0 and self._before is not None:
                write_starts(self._out, self._starts())
            took = time.perf_counter() - self._written
            self._every = max(self._least, min(WRITES_APART * took, SELDOMEST))

    def _starts(self) -> list[Start]:
        self._record.seen, self._record.step = time.time(), self._step
        self._record.seconds = {**self.seconds, "step": self.stepping}
        if self._opened is not None:
            self._record.seconds[self._phase] = self.seconds[self._phase] + self._open_seconds
        return [*(self._before or []), self._record]

    @property
    def _open_seconds(self) -> float:
        return 0.0 if self._opened is None else time.perf_counter() - self._opened

    @property
    def stepping(self) -> float:
        """Seconds spent on training steps in this start."""
        known = sum(self.seconds.values()) + self._open_seconds
        return time.perf_counter() - self._start - known

    def account(self) -> dict[str, float]:
        """Seconds of the whole run, over all starts (see `starts.accounted`)."""
        return accounted(self._starts())

    @property
    def goodput(self) -> float:
        """Fraction of the run's wall time, over all starts, spent on productive steps."""
        return goodput(self._starts())
