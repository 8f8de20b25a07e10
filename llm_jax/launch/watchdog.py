"""Notices a trainer that makes no more progress, with one limit for each phase."""

from __future__ import annotations

from dataclasses import fields

from llm_jax.launch.spec import Limits

PHASES = tuple(f.name for f in fields(Limits) if f.name != "heartbeat")


class Watchdog:
    """Fed with the trainer's status; any change of phase or step is progress."""

    def __init__(self, limits: Limits, now: float, reports: float = 0.0) -> None:
        """`reports`: seconds between two reports; of many hosts they are far apart."""
        self.limits, self.least = limits, 3 * reports
        self.phase = "startup"
        self.step = -1
        self.changed = now

    def observe(self, status: dict | None, now: float) -> None:
        """Takes in a report {"phase", "step"}; `now` is monotonic seconds."""
        if status and (status["phase"], status["step"]) != (self.phase, self.step):
            self.phase, self.step, self.changed = status["phase"], status["step"], now

    def limit(self) -> float:
        """Seconds that the current phase may last; an unknown phase gets the longest limit.

        It is at least as long as three reports take, or a sound trainer would be killed.
        """
        known = [self.phase] if self.phase in PHASES else PHASES
        return max(self.least, *(getattr(self.limits, phase) for phase in known))

    def hung(self, now: float) -> bool:
        return now - self.changed > self.limit()

    def sentence(self) -> str:
        """The words for the exit record; the step is added by whoever prints it."""
        return f"no progress in phase {self.phase} for {self.limit():.0f} s"
