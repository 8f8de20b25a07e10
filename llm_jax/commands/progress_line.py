"""Progress of long work on stderr: a rich bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

LINE_SECONDS = 5.0


class ProgressReporter:
    """Shows the (phase, done, total) that work reports; a context manager."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._bar = None
        self._shown = 0.0
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)

    def __enter__(self) -> ProgressReporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        if self._bar is not None:
            if phase != self._phase:
                self._task = self._bar.add_task(phase, total=total)
            self._bar.update(self._task, completed=done, total=total)
        elif phase != self._phase:
            self._shown = time.monotonic()
            print(phase, file=sys.stderr, flush=True)
        elif time.monotonic() - self._shown > LINE_SECONDS:
            self._shown = time.monotonic()
            amount = f"{done:,} of {total:,}" if total else f"{done:,}"
            print(f"{phase}: {amount}", file=sys.stderr, flush=True)
        self._phase = phase
