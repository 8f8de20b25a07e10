"""How all agents of a job come to know the same history before they decide."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llm_jax.launch.budget import READERS, turn_of
from llm_jax.launch.history import closable, close, history, outcome
from llm_jax.launch.news import Gang
from llm_jax.launch.records import Attempt, attempt_name

if TYPE_CHECKING:
    from llm_jax.launch.agent import Agent


def past_attempts(agent: Agent) -> list[Attempt]:
    """The history of the job, once what earlier allocations left open has been closed.

    A few hosts close it, and the others wait for them. Those that waited in vain read the records
    of all hosts themselves.
    """
    spec, began = agent.spec, time.monotonic()
    turn = turn_of(agent.process, spec.hosts)
    while not agent.terminated:
        older = closable(agent.folder, agent.first, attempt_name(agent.incarnation, 0))
        waited = time.monotonic() - began
        if not older or waited > agent.pace.stale:
            break
        if turn is not None and waited >= turn * agent.pace.turn:
            close(agent.folder, spec.hosts, agent.first, older[-1])
            break
        agent.pause(agent.pace.news)
    return history(agent.folder, spec.hosts, agent.first)


def settle(agent: Agent, attempt: str, gang: Gang) -> list[Attempt]:
    """Waits until every host that took part has its record and the attempt is closed: all then
    decide from the same. Returns the history.

    A host that was lost gets its record after `limits.heartbeat`. One that does not end although it
    gives signs of life is not waited for beyond that.
    """
    folder, spec, pace = agent.folder, agent.spec, agent.pace
    patience = max(spec.grace_seconds, spec.limits.heartbeat) + 30
    deadline = time.monotonic() + patience
    give_up = deadline + pace.stale + READERS * pace.turn
    ready: float | None = None
    while (now := time.monotonic()) <= give_up and not agent.terminated:
        past = outcome(folder, spec.hosts, agent.first, attempt)
        if past is not None:
            return past
        gang.look(started=True)
        if gang.turn == 0:  # when the last host has ended, the records of most are known
            gang.peers.read_ends()
        if gang.turn is not None and (gang.over or now >= deadline):
            ready = now if ready is None else ready
            if now - ready >= gang.turn * pace.turn:
                gang.peers.read_ends()
                close(folder, spec.hosts, agent.first, attempt, gang.peers.ends)
                break
        agent.pause(gang.due - time.monotonic())
    if agent.terminated and not gang.alone:
        return []  # this host leaves, and the others decide
    return history(folder, spec.hosts, agent.first)
