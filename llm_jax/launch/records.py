"""What a job leaves in its output folder, and how it is found again.

  launch/job.json                        the specification, and the incarnation it began with
  launch/run.json                        the resolved run, which every host trains
  launch/code.tar.gz                     the code bundle, if one is sent
  launch/stop.json                       someone asked the job to stop
  launch/leases/<n>.json                 who supervises (lease.py)
  launch/attempts/<a>/host.<p>.json      host p is there: address, phase, step; rewritten often
  launch/attempts/<a>/host.<p>.log       what its trainer wrote
  launch/attempts/<a>/host.<p>.exit.json how host p's part of the attempt ended; written once
  status.<p>.json                        the trainer's own: {"phase", "step", "time"}

An attempt is named `<incarnation>.<restart>`: the incarnation is the allocation (queued resource,
Slurm start, JobSet restart), the restart counts trainers started within it.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llm_jax.config import UserError, from_dict, parse_json, require_shape
from llm_jax.launch.folder import Folder
from llm_jax.launch.spec import JobSpec

# Ends, most telling first: of several hosts' ends the first of this order is the root cause.
Kind = Literal[
    "config", "refused", "missing", "memory", "disk", "error", "stopped", "hang", "killed",
    "lost", "preempted", "peer", "finished",
]  # fmt: skip
ATTEMPT_FILE = re.compile(
    r"launch/attempts/(\d{4,9}\.\d{4,9})/host\.(\d{1,9})\.(json|exit\.json|log(?:\.\d+)?)"
)
MOST_WORDS = 300
"""Characters of what is said about a file."""
KINDS: tuple[str, ...] = Kind.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class ExitRecord:
    """How one host's part of an attempt ended."""

    process: int
    hostname: str
    kind: Kind
    sentence: str
    """The cause without the host, such as `out of memory at step 1200`."""
    code: int | None
    """Exit code of the trainer, minus the signal if one ended it, None if it never ran."""
    step: int
    """Last step the trainer reported; -1 before the first report."""
    phase: str
    time: float
    """Seconds since the epoch on that host's clock."""


@dataclass(frozen=True)
class Attempt:
    name: str
    exits: tuple[ExitRecord, ...]
    """In order of process."""
    hosts: int
    """Hosts that the gang has."""

    @property
    def ended(self) -> bool:
        return bool(self.exits)

    @property
    def finished(self) -> bool:
        kinds = [e.kind for e in self.exits]
        return len(kinds) == self.hosts and set(kinds) == {"finished"}

    @property
    def step(self) -> int:
        return max((e.step for e in self.exits), default=-1)


def write_json(folder: Folder, name: str, value: Any) -> None:
    folder.write(name, _dump(value))


def _dump(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def read_json(folder: Folder, name: str) -> Any:
    """The parsed content, or None where there is none or it is not JSON."""
    data = folder.read(name)
    try:
        return None if data is None else parse_json(data, name)
    except UserError:
        return None


def read_object(folder: Folder, name: str, shape: dict[str, Any]) -> dict[str, Any] | None:
    """The object in the file `name`, or None where there is none.

    One that is damaged, or not of that shape (`require_shape`), counts as none; that is said.
    """
    data = folder.read(name)
    if data is None:
        return None
    try:
        value = parse_json(data, name)
        require_shape(value, shape, name)
    except UserError as error:
        pass_over(folder.address, str(error))
        return None
    return value


@functools.cache  # whoever watches a folder meets the same file again and again
def pass_over(address: str, what: str) -> None:
    """Says, once in a process, that something in a job's folder is not used."""
    words = " ".join(what.split())[:MOST_WORDS].rstrip(".")
    print(f"warning: passed over in {address}: {words}", file=sys.stderr, flush=True)


def own_files(
    folder: Folder, place: str, form: re.Pattern[str], what: str
) -> Iterator[re.Match[str]]:
    """The files below `place` whose names have the form; others are passed over, which is said.

    Args:
      what: what they are, as in "launch/attempts/x is not of an agent".
    """
    for name in folder.names(place):
        parts = form.fullmatch(name)
        if parts is None:
            pass_over(folder.address, f"{name} is not {what}")
        else:
            yield parts


def job_json(spec: JobSpec, first: int) -> str:
    """Content of `launch/job.json`; `first` is the incarnation that this launch begins with."""
    return _dump({"spec": asdict(spec), "first": first}).decode()


def load_job(folder: Folder) -> tuple[JobSpec, int]:
    """The specification stored in a job's folder, and the first incarnation of this launch.

    Raises:
      UserError: the folder holds no job.
    """
    raw = read_json(folder, "launch/job.json")
    if not isinstance(raw, dict) or not isinstance(raw.get("first"), int):
        raise UserError(f"{folder.address} holds no job: give the output folder of a launched job.")
    return from_dict(raw.get("spec"), JobSpec, "job"), raw["first"]


def attempt_name(incarnation: int, restart: int) -> str:
    """Names sort in the order of time."""
    return f"{incarnation:04d}.{restart:04d}"


def attempt_folder(attempt: str) -> str:
    return f"launch/attempts/{attempt}"


def attempts(folder: Folder, hosts: int, first: int = 0) -> list[Attempt]:
    """The attempts from incarnation `first` on, oldest first."""
    found: dict[str, list[ExitRecord]] = {}
    for file in attempt_files(folder):
        if file.attempt < attempt_name(first, 0):
            continue
        exits = found.setdefault(file.attempt, [])
        record = _exit_record(folder, file, hosts) if file.is_exit else None
        if record is not None:
            exits.append(record)
    ordered = {a: sorted(e, key=lambda r: r.process) for a, e in sorted(found.items())}
    return [Attempt(name, tuple(exits), hosts) for name, exits in ordered.items()]


def _exit_record(folder: Folder, file: AttemptFile, hosts: int) -> ExitRecord | None:
    """The record in a file; None if it is damaged or not of a host of the job, which is said."""
    raw = read_object(folder, file.name, {})
    if raw is None:
        return None
    try:
        record = from_dict(raw, ExitRecord, file.name)
        if record.process == file.process < hosts:
            return record
        raise UserError(f"{file.name} is of host {record.process}, of {hosts}")
    except UserError as error:
        pass_over(folder.address, str(error))
        return None


@dataclass(frozen=True)
class AttemptFile:
    """What an agent has written about an attempt."""

    name: str
    attempt: str
    process: int
    is_exit: bool


def attempt_files(folder: Folder) -> list[AttemptFile]:
    """What agents have written; a stranger's files beside them are passed over."""
    return [
        AttemptFile(parts[0], parts[1], int(parts[2]), parts[3] == "exit.json")
        for parts in own_files(folder, "launch/attempts", ATTEMPT_FILE, "of an agent")
    ]


def next_attempt(folder: Folder, incarnation: int) -> str:
    """The first attempt of the incarnation in which nobody has ended yet.

    Hosts that call this after the same ending agree on the answer without talking to each other.
    """
    ended = {file.attempt for file in attempt_files(folder) if file.is_exit}
    restart = 0
    while attempt_name(incarnation, restart) in ended:
        restart += 1
    return attempt_name(incarnation, restart)


def next_incarnation(folder: Folder) -> int:
    """An incarnation above every one that left an attempt behind."""
    used = [int(file.attempt.split(".")[0]) for file in attempt_files(folder)]
    return max(used, default=-1) + 1


def record_exit(folder: Folder, attempt: str, record: ExitRecord) -> bool:
    """Writes the record unless that host has one already; True if this one counts."""
    name = f"{attempt_folder(attempt)}/host.{record.process}.exit.json"
    return folder.create(name, _dump(asdict(record)))


def outside_record(process: int, kind: Kind, sentence: str, status: dict | None) -> ExitRecord:
    """A record that someone else writes for a host that could not write its own."""
    status = status or {}
    return ExitRecord(
        process=process,
        hostname="",
        kind=kind,
        sentence=sentence,
        code=None,
        step=int(status.get("step", -1)),
        phase=str(status.get("phase", "startup")),
        time=time.time(),
    )


def trainer_status(folder: Folder, process: int) -> dict | None:
    """The trainer's last report {"phase", "step", "time"}, or None if there is no valid one."""
    raw = read_json(folder, f"status.{process}.json")
    if not isinstance(raw, dict) or not isinstance(raw.get("step"), int):
        return None
    return raw if isinstance(raw.get("phase"), str) else None


def stop_requested(folder: Folder) -> bool:
    return folder.read("launch/stop.json") is not None
