"""The real agents, supervisor and records of a job on simulated machines.

What is replaced: the clock and threads (`clock.py`), the output folder (`bucket.py`), the trainer,
the machine's own checks, and the cloud that allocates hosts.
"""

from __future__ import annotations

import contextlib
import random
import sys
from dataclasses import dataclass, field
from typing import Any

import llm_jax.launch.supervisor as supervisor_module
from llm_jax.launch.actions import Action
from llm_jax.launch.agent import Agent
from llm_jax.launch.backends import Resource
from llm_jax.launch.records import job_json
from llm_jax.launch.spec import JobSpec, Tpu
from llm_jax.train import clock as trainer_clock
from simulated.bucket import Bucket, ModelFolder
from simulated.clock import Task, World
from simulated.seams import replaced
from simulated.trainer import START_SECONDS, SimulatedTrainer

SKEW = 2.0
"""Seconds by which hosts' clocks are wrong, standard deviation; one in a hundred by a minute."""
BOOT_SECONDS = 30.0
CREATE_SECONDS = 120.0
CLOUD_SEES = 240.0
"""Seconds until the cloud reports a host that is gone."""
MOST_PARTS = 1 << 20
HEARTBEAT = 10.0
"""JAX's own, after which trainers end when a host is gone (`train/distributed.py`)."""
CHIPS = 4


@dataclass
class Failure:
    """A failure, and when (seconds of virtual time) its effects were over."""

    kind: str
    process: int
    moment: float
    ended: dict[int, float] = field(default_factory=dict)
    """Host → when its trainer had ended and its agent knew."""
    again: dict[int, float] = field(default_factory=dict)
    """Host → when its agent had decided: it began the next attempt, or left to be replaced."""
    stepping: float | None = None
    """When the next gang of trainers started."""

    def last(self, moments: dict[int, float]) -> float:
        """Seconds from the failure until the last host's moment, without one that is gone."""
        gone = self.process if self.kind == "host" else -1
        return max(moment for host, moment in moments.items() if host != gone) - self.moment


class Machine:
    """A host: its agent, and the trainer that it has started."""

    def __init__(self, job: Job, process: int) -> None:
        self.job, self.process = job, process
        self.task: Task | None = None
        self.trainer: SimulatedTrainer | None = None

    def run(self) -> None:
        """As the start-up script does: the agent again and again, until it says that it is over."""
        job = self.job
        job.world.sleep(job.dice.uniform(0, BOOT_SECONDS))
        env = {"LLM_JAX_PROCESS": str(self.process), "LLM_JAX_INCARNATION": str(job.incarnation)}
        while True:
            folder = ModelFolder(job.bucket, job.part_bytes)
            agent = Watched(folder, job.spec, 0, env)
            agent.machine = self
            agent.dice = random.Random(f"{job.seed} {self.process} {job.world.now}")
            with contextlib.suppress(OSError):
                if agent.run() in (0, 75, 78):
                    return
            if job.failures:
                job.failures[-1].again.setdefault(self.process, job.world.now)
            job.world.sleep(10.0)

    def lose(self) -> None:
        """The machine is gone, with all that runs on it."""
        if self.trainer:
            self.trainer.gone = True
        assert self.task is not None
        self.job.world.kill(self.task)


class Watched(Agent):
    """The agent, whose moments are noted."""

    machine: Machine

    def say(self, text: str) -> None:
        self.machine.job.said.append(f"{self.machine.job.world.now:8.1f} [{self.process}] {text}")

    def attempt(self, *words: Any) -> Any:
        job = self.machine.job
        if job.failures:
            job.failures[-1].again.setdefault(self.process, job.world.now)
        record = super().attempt(*words)
        if job.failures:
            job.failures[-1].ended.setdefault(self.process, job.world.now)
        return record


class Cloud:
    """The back end: what Cloud TPU says of the hosts, and does with them."""

    restarts_itself = False

    def __init__(self, job: Job) -> None:
        self.job, self.lost = job, {}  # type: ignore[var-annotated]

    def render(self, incarnation: int) -> list[Action]:
        self.job.incarnation = incarnation
        return [Action()]

    def apply(self, action: Action) -> None:
        self.job.world.sleep(CREATE_SECONDS)
        self.lost = {}
        self.job.boot()

    def resource(self) -> Resource:
        self.job.world.sleep(0.5)
        seen = [p for p, since in self.lost.items() if self.job.world.now - since > CLOUD_SEES]
        if seen:
            return Resource("failed", "the host is gone", tuple(seen))
        return Resource("running" if self.job.machines else "absent")

    def remove(self) -> None:
        for machine in self.job.machines.values():
            machine.lose()
        self.job.machines = {}
        self.job.world.sleep(60.0)


class Job:
    def __init__(self, hosts: int, seed: int) -> None:
        SimulatedTrainer.current = self
        self.hosts, self.seed, self.dice = hosts, seed, random.Random(seed)
        self.world = World()
        self.bucket = Bucket(self.world, seed)
        slice_hosts = min(hosts, 64)
        self.spec = JobSpec(
            name="simulated", config="run.json", out=ModelFolder.address, retries=1000,
            accelerator=f"v5e-{4 * slice_hosts}", slices=hosts // slice_hosts,
            backend=Tpu(project="my-project", zone="us-east5-a"), code=".",
        )  # fmt: skip
        assert self.spec.hosts == hosts
        self.machines: dict[int, Machine] = {}
        self.incarnation = 0
        self.failures: list[Failure] = []
        self.said: list[str] = []
        self.gang: list[SimulatedTrainer] = []
        self.training: list[tuple[float, float]] = []
        """Spans in which all trainers ran, from their first step on."""
        self._since = 0.0
        least = getattr(trainer_clock, "STATUS_PER_SECOND", None)
        # Before, one write took 0.15 s through the mount, and fifty times as long was between two.
        self.report_seconds = max(7.5, hosts / least) if least else 7.5
        bucket_module = (
            sys.modules.get("llm_jax.launch.bucket") or sys.modules["llm_jax.launch.folder"]
        )
        self.part_bytes = getattr(bucket_module, "PART_BYTES", MOST_PARTS)
        self.bucket.put("launch/job.json", job_json(self.spec, 0).encode())
        self.bucket.put("launch/run.json", b"{}")

    def step(self) -> int:
        return int(self.world.now / 5)

    def started(self, trainer: SimulatedTrainer) -> None:
        self.gang = [t for t in self.gang if t.ending is None and not t.gone] + [trainer]
        if len(self.gang) == self.hosts:
            self._since = self.world.now
            if self.failures and self.failures[-1].stepping is None:
                self.failures[-1].stepping = self.world.now

    @property
    def whole(self) -> bool:
        """All trainers run, and have started to step."""
        return (
            len(self.gang) == self.hosts
            and all(t.ending is None and not t.gone for t in self.gang)
            and self.world.now - self._since > START_SECONDS
        )

    def boot(self) -> None:
        for process in range(self.hosts):
            skew = self.dice.gauss(0, SKEW) + 60.0 * (self.dice.random() < 0.01)
            machine = self.machines[process] = Machine(self, process)
            machine.task = self.world.spawn(machine.run, skew)

    def fail(self, kind: str) -> None:
        """Lets a failure happen now: `crash` (the others hang in a collective), `storm` (the
        others' trainers end as well), or `host` (a machine is gone)."""
        victim = self.dice.randrange(self.hosts)
        self.training.append((self._since + START_SECONDS, self.world.now))
        self.failures.append(Failure(kind, victim, self.world.now))
        gang, trainer = list(self.gang), self.machines[victim].trainer
        assert trainer is not None
        if kind == "host":
            self.cloud.lost[victim] = self.world.now
            self.machines[victim].lose()
        else:
            trainer.end(-11)
        if kind != "crash":
            delay = 1.0 if kind == "storm" else HEARTBEAT
            for other in gang:
                moment = self.world.now + delay * self.dice.uniform(0.8, 1.2)
                if other is not trainer:
                    self.world.at(moment, lambda one=other: one.end(76))  # type: ignore[misc]

    def run(self, kinds: list[str], every: float, most: float) -> None:
        """Runs the job through failures of these kinds, `every` seconds on the average."""
        self.cloud = Cloud(self)
        with replaced(self.world):
            self.world.spawn(self._supervise)
            began = 0.0
            for kind in [*kinds, ""]:
                while not self.whole:
                    self.world.sleep(1.0)
                    if self.world.now - began > most:
                        return
                self.world.sleep(60.0 + self.dice.expovariate(1 / every) * bool(kind))
                began = self.world.now
                if kind:
                    self.fail(kind)
            self.training.append((self._since + START_SECONDS, self.world.now))

    def _supervise(self) -> None:
        folder: Any = ModelFolder(self.bucket, self.part_bytes)
        back: Any = self.cloud
        supervisor = supervisor_module.Supervisor(
            self.spec, 0, back, folder, self.said.append, sleep=self.world.sleep, poll=15.0
        )
        outcome = supervisor.run()
        self.said.append(f"supervisor: {outcome}")
