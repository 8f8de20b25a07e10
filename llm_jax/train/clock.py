"""Where a run's wall time goes, by phase: the numbers behind goodput, and a sign of life.

The phase and the step are kept in `status.<process>.json` of the run's folder, which is what a
launcher's watchdog looks at.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

STATUS_SECONDS = 1.0


class Clock:
    """Seconds per phase since it was made; what no phase claims counts as `step`."""

    def __init__(self, out: Path, process: int) -> None:
        self._start = time.perf_counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._status = out / f"status.{process}.json"
        self._written = 0.0
        self._phase, self._step = "startup", 0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start, before = time.perf_counter(), self._phase
        self._enter(name)
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
            self._enter(before)

    def stepped(self, step: int) -> None:
        """Notes that `step` was dispatched; the file is rewritten once a second."""
        self._step = step
        if self._phase != "step" or time.perf_counter() - self._written > STATUS_SECONDS:
            self._enter("step")

    def _enter(self, phase: str) -> None:
        self._phase, self._written = phase, time.perf_counter()
        if self._status.parent.is_dir():  # before the folder is claimed nobody can look
            record = {"phase": phase, "step": self._step, "time": time.time()}
            temporary = self._status.with_suffix(".tmp")
            temporary.write_text(json.dumps(record), encoding="utf-8")
            temporary.replace(self._status)

    @property
    def stepping(self) -> float:
        """Seconds spent on training steps."""
        return time.perf_counter() - self._start - sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Fraction of all wall time spent on training steps."""
        return self.stepping / (time.perf_counter() - self._start)
