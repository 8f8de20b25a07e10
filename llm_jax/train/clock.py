"""Where a run's wall time goes, by phase: the numbers behind goodput."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator


class Clock:
    """Seconds per phase since it was made; what no phase claims counts as `step`."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    @property
    def stepping(self) -> float:
        """Seconds spent on training steps."""
        return time.perf_counter() - self._start - sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Fraction of all wall time spent on training steps."""
        return self.stepping / (time.perf_counter() - self._start)
