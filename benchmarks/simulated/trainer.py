"""A trainer that does nothing but last, report and end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulated.job import Job

START_SECONDS = 30.0
"""From the trainer's start to its first step: restore and compile."""


class SimulatedTrainer:
    """Steps until it fails, its gang fails, or it is signalled."""

    current: Job | None = None
    """The job that trainers are started for."""

    def __init__(self, command: list[str], env: dict[str, str], wake: Any = None) -> None:
        assert SimulatedTrainer.current is not None
        self.job = SimulatedTrainer.current
        self.process = int(env["JAX_PROCESS_ID"])
        self.started = self.job.world.now
        self.wake, self.heard, self.tail = wake, 0.0, b""
        self.ending: int | None = None
        self.gone = False
        self.lines = b"start\n"
        machine = self.job.machines[self.process]
        machine.trainer = self
        self.job.started(self)
        self.job.world.at(self.started + self.job.dice.uniform(0, 5), self.report)

    def report(self) -> None:
        """Writes the status through the mount: a new file, and a rename."""
        job = self.job
        if self.ending is not None or self.gone:
            return
        stepping = job.world.now - self.started >= START_SECONDS
        status = {"phase": "step" if stepping else "compile", "time": job.world.now}
        status["step"] = job.step() if stepping else 0
        job.bucket.reports[self.process] = json.dumps(status).encode()
        job.bucket.count("write", 2)
        if self.process == 0:
            self.lines += b"step: loss, speed, and what else a line of training says\n" * 2
        job.world.at(job.world.now + job.report_seconds, self.report)

    def end(self, code: int) -> None:
        if self.ending is None:
            self.ending = code
            if self.wake is not None:
                self.wake.set()

    def code(self) -> int | None:
        return self.ending

    def is_stopped(self) -> bool:
        return False

    def send(self, number: int) -> None:
        if number == 15:
            self.job.world.at(self.job.world.now + 20.0, lambda: self.end(75))

    def kill(self) -> None:
        self.end(-9)

    def finish(self) -> None:
        self.kill()

    def take_output(self) -> bytes:
        data, self.lines = self.lines, b""
        return data

    take_lines = take_output

    def give_back(self, data: bytes) -> None:
        self.lines = data + self.lines
