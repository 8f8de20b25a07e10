"""Looks after a running trainer: its progress, its peers, the wishes of whoever started the job."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

from llm_jax.launch import checks
from llm_jax.launch.news import Gang
from llm_jax.launch.records import Kind, log_name, trainer_status
from llm_jax.launch.trainer import Trainer
from llm_jax.launch.watchdog import Watchdog

if TYPE_CHECKING:
    from llm_jax.launch.agent import Agent

PEER_SECONDS = 5.0  # a trainer leaves by itself when a peer is lost; after this it is killed
DUMP_SECONDS = 2.0  # for faulthandler to write the stacks of all threads; then it is silent
SILENT_SECONDS = 0.3
# Phases that come before the first step: a trainer that compiles for minutes hears no signal, and
# has nothing to save.
NOTHING_TO_LOSE = ("startup", "restore", "compile")


class Watch:
    """Looks after a running trainer until it ends, by itself or by the agent's hand."""

    def __init__(
        self, agent: Agent, attempt: str, gang: Gang, presence: dict, trainer: Trainer
    ) -> None:
        self.agent, self.attempt, self.gang, self.trainer = agent, attempt, gang, trainer
        self.presence = presence
        now = time.monotonic()
        self.watchdog = Watchdog(agent.spec.limits, now, agent.pace.status)
        # Not all hosts at once: the first time comes anywhere within the interval.
        first = agent.dice.random() if agent.pace.spread else 1.0
        self.due = {what: now + first * every for what, every in self.every.items()}
        self.asked: float | None = None
        self.peer_gone: float | None = None
        self.peer_patience = PEER_SECONDS
        self.complained = False

    @property
    def every(self) -> dict[str, float]:
        """Seconds between two requests, by their purpose."""
        pace = self.agent.pace
        return {"status": pace.status, "announce": pace.announce, "log": pace.log}

    def until_end(self) -> tuple[Kind, str] | None:
        """Returns why the agent ended the trainer, or None if it ended by itself."""
        while self.trainer.code() is None:
            self.agent.pause(self.rest(time.monotonic()))
            if self.trainer.code() is not None:
                break
            now = time.monotonic()
            if self.is_due("log", now):
                store_output(self.agent, self.attempt, self.trainer)
            try:
                self.look(now)
            except OSError as error:
                # Blind to the folder, the agent cannot tell a slow trainer from a dead one.
                self.watchdog.changed = now
                if not self.complained:
                    self.agent.say(f"the output folder does not answer: {error}")
                    self.complained = True
            why = self.reason_to_end(now)
            if why:
                if why[0] != "preempted":
                    self.dump_stacks()
                self.trainer.kill()
                return why
        return None

    def rest(self, now: float) -> float:
        """Seconds until there is something to do."""
        urgent = self.asked is not None or self.peer_gone is not None
        return min(*self.due.values(), self.gang.due, now + (1.0 if urgent else 60.0)) - now

    def is_due(self, what: str, now: float) -> bool:
        if now < self.due[what]:
            return False
        self.due[what] = now + self.every[what]
        return True

    def look(self, now: float) -> None:
        """Takes in the trainer's status and the other hosts' signs of life, and gives its own."""
        agent = self.agent
        self.heed(now)
        if self.is_due("announce", now):
            checks.announce(agent.folder, self.attempt, agent.process, self.presence)
        news = self.gang.look(started=True)
        self.heed(now)
        if self.is_due("status", now):
            self.watchdog.observe(trainer_status(agent.folder, agent.process), now)
        if news.failed and self.peer_gone is None:
            self.peer_gone = now
            if news.failed == "preempted":  # all save together, which takes its time
                self.peer_patience = agent.spec.grace_seconds

    def heed(self, now: float) -> None:
        """Asks the trainer to save and leave if the job is to stop."""
        if self.agent.leaving(self.gang) and self.asked is None:
            self.trainer.send(signal.SIGTERM)
            self.asked = self.due["status"] = now  # whether it has anything to save

    def reason_to_end(self, now: float) -> tuple[Kind, str] | None:
        grace = self.agent.spec.grace_seconds
        if self.asked is not None and self.watchdog.phase in NOTHING_TO_LOSE:
            return "preempted", "stopped before the first step"
        if self.asked is not None and now - self.asked > grace:
            return "killed", f"had not saved {grace:.0f} s after the request to stop"
        deserted = self.peer_gone is not None and now - self.peer_gone > self.peer_patience
        if (deserted or self.watchdog.hung(now)) and self.trainer.is_stopped():
            return "stopped", "the process was frozen (SIGSTOP)"
        if deserted:
            return "peer", "lost a peer"
        return ("hang", self.watchdog.sentence()) if self.watchdog.hung(now) else None

    def dump_stacks(self) -> None:
        """Asks faulthandler for the stacks of all threads, and lets it write them."""
        if self.trainer.is_stopped():
            return  # it will hear of it when it continues
        before = self.trainer.heard
        self.trainer.send(signal.SIGUSR1)
        until = time.monotonic() + DUMP_SECONDS
        while self.trainer.code() is None and time.monotonic() < until:
            time.sleep(0.05)
            heard = self.trainer.heard
            if heard > before and time.monotonic() - heard > SILENT_SECONDS:
                return


def store_output(agent: Agent, attempt: str, trainer: Trainer) -> None:
    """Sends the lines that the trainer has written to this process's own output and to the folder,
    without the secrets in them."""
    data = agent.without_secrets(trainer.take_lines())
    if not data:
        return
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    try:
        agent.folder.append(log_name(attempt, agent.process), data)
    except OSError:
        trainer.give_back(data)
