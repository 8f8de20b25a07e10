"""Why an attempt ended, and whether to try again: two pure functions over exit records.

When one host of a gang fails, all others fail too, with heartbeat timeouts and broken
connections. Those are symptoms; `root_cause` looks behind them.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.exits import CONFIG, FINISHED, PEER_LOST, PREEMPTED, USAGE
from llm_jax.config.wording import counted
from llm_jax.launch.records import KINDS, Attempt, ExitRecord, Kind

# What the log of a trainer says when another host is to blame (coordination service, Gloo, NCCL,
# gRPC), matched against its last lines.
PEER_SIGNS = re.compile(
    r"heartbeat timeout|coordination service|Connection (reset|closed|refused)|Gloo .*(timeout|"
    r"fail)|NCCL .*(remote|unhandled)|DEADLINE_EXCEEDED|UNAVAILABLE|PreemptionSyncManager",
    re.IGNORECASE,
)
MEMORY_SIGNS = re.compile(
    r"RESOURCE_EXHAUSTED|[Oo]ut of memory|MemoryError|bad_alloc|\bOOM\b|Oom\b"
)
DISK_SIGNS = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system")
ERROR_LINE = re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*|error: .*)$", re.M)


def classify(code: int, log_tail: str) -> tuple[Kind, str]:
    """What the trainer's exit code (minus the signal) and last output say.

    Returns:
      The kind of end, and the words for it without host and step.
    """
    if code == FINISHED:
        return "finished", "finished"
    if code == PREEMPTED:
        return "preempted", "told to stop, state saved"
    if code in (CONFIG, USAGE):
        return "config", _last_error(log_tail) or "a configuration that can never run"
    if code == PEER_LOST:
        return "peer", "lost a peer"
    disk = DISK_SIGNS.search(log_tail)
    if disk:
        return "disk", disk.group(0).lower()
    if MEMORY_SIGNS.search(log_tail):
        return "memory", "out of memory"
    error = _last_error(log_tail)
    if PEER_SIGNS.search(error or log_tail):
        return "peer", "lost a peer"
    if code < 0:
        return "killed", f"killed by {signal_name(-code)}"
    return "error", error or f"exit code {code}"


def signal_name(number: int) -> str:
    """`SIGKILL`, or `signal 40` of one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_error(log_tail: str) -> str | None:
    """The last line that names an exception or starts with `error:`, at most 200 characters."""
    lines = ERROR_LINE.findall(log_tail)
    return lines[-1].removeprefix("error: ").strip().rstrip(".")[:200] if lines else None


def root_cause(attempt: Attempt) -> ExitRecord | None:
    """The exit that explains the others: the most telling kind, then the earliest step and time."""
    failed = [e for e in attempt.exits if e.kind != "finished"]
    return min(failed, key=lambda e: (KINDS.index(e.kind), e.step, e.time), default=None)


def sentence(record: ExitRecord) -> str:
    """`host 3: out of memory at step 1200`."""
    if record.kind == "missing":
        return record.sentence
    where = f" at step {record.step}" if record.step >= 0 else f" in {record.phase}"
    place = "" if record.kind in ("config", "refused", "lost") else where
    return f"host {record.process}: {record.sentence}{place}"


@dataclass(frozen=True)
class Decision:
    action: Literal["finished", "retry", "stop"]
    cause: str
    wait: float = 0.0
    """Seconds before the next attempt."""


def decide(history: Sequence[Attempt], retries: int, backoff: float) -> Decision:
    """What follows after the last ended attempt of `history` (oldest first).

    A failure counts against `retries` only while the highest step does not rise: an attempt that
    got further than all before it restarts the count. Preemptions never count.
    """
    ended = [attempt for attempt in history if attempt.ended]
    if not ended:
        return Decision("retry", "")
    last = ended[-1]
    cause = root_cause(last)
    if cause is None:
        missing = last.hosts - last.recorded
        if missing == 0:
            return Decision("finished", "")
        return Decision("retry", f"{missing} of {counted(last.hosts, 'host')} left no record")
    if cause.kind == "config":
        return Decision("stop", sentence(cause))
    best, failures = -1, 0
    for attempt in ended:
        if attempt.step > best:
            best, failures = attempt.step, 0
        end = root_cause(attempt)
        failures += end is not None and end.kind != "preempted"
    if cause.kind == "preempted":
        return Decision("retry", sentence(cause))
    if failures > retries:
        restarts = (
            f"{counted(retries, 'restart')} got no further"
            if retries
            else "no restarts are allowed"
        )
        return Decision("stop", f"{sentence(cause)} ({restarts})")
    wait = 0.0 if failures <= 1 else min(300.0, backoff * 2 ** (failures - 2))
    return Decision("retry", sentence(cause), wait)
