"""What a job leaves in its output folder, and how it is found again.

  launch/job.json                        the specification, and the incarnation it began with
  launch/run.json                        the resolved run, which every host trains
  launch/code.tar.gz                     the code bundle, if one is sent
  launch/stop.json                       someone asked the job to stop
  launch/leases/<n>.json                 who supervises (lease.py)
  launch/attempts/<a>/host.<p>.json      host p is there: address, phase, step; rewritten often
  launch/attempts/<a>/host.<p>.exit.json how host p's part of the attempt ended; written once
  launch/closed/<a>.json                 what follows from attempt a and all before it (history.py)
  launch/closed/<a>.hosts.json           the exit records of all hosts of attempt a, in one file
  launch/news/<a>.json                   what a few hosts have seen of the others (news.py)
  launch/logs/<a>/host.<p>.log           what its trainer wrote
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
from collections.abc import Iterable, Iterator, Mapping
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
    """In order of process; of a condensed attempt those that explain it."""
    hosts: int
    """Hosts that the gang has."""
    condensed: int = 0
    """Of a condensed attempt, the number of exit records that there were."""

    @property
    def recorded(self) -> int:
        """Hosts that have left an exit record."""
        return self.condensed or len(self.exits)

    @property
    def ended(self) -> bool:
        return bool(self.exits)

    @property
    def finished(self) -> bool:
        return self.recorded == self.hosts and {e.kind for e in self.exits} == {"finished"}

    @property
    def step(self) -> int:
        return max((e.step for e in self.exits), default=-1)


def write_json(folder: Folder, name: str, value: Any) -> None:
    folder.write(name, _dump(value))


def _dump(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def read_json(folder: Folder, name: str) -> Any:
    """The parsed content, or None where there is none or it is not JSON."""
    return parsed(folder.read(name), name)


def parsed(data: bytes | None, name: str) -> Any:
    """`read_json` of a file that has been read: `data` is its content."""
    try:
        return None if data is None else parse_json(data, name)
    except UserError:
        return None


def read_object(folder: Folder, name: str, shape: dict[str, Any]) -> dict[str, Any] | None:
    """The object in the file `name`, or None where there is none.

    One that is damaged, or not of that shape (`require_shape`), counts as none; that is said.
    """
    return parsed_object(folder, name, folder.read(name), shape)


def parsed_object(
    folder: Folder, name: str, data: bytes | None, shape: dict[str, Any]
) -> dict[str, Any] | None:
    """`read_object` of a file that has been read: `data` is its content."""
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
    folder: Folder, place: str, form: re.Pattern[str], what: str, after: str = ""
) -> Iterator[re.Match[str]]:
    """The files below `place` whose names have the form; others are passed over, which is said.

    Args:
      what: what they are, as in "launch/attempts/x is not of an agent".
      after: names that sort before it are left out.
    """
    for name in folder.names(place, after):
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


def log_name(attempt: str, process: int) -> str:
    """Where an agent puts what its trainer writes."""
    return f"launch/logs/{attempt}/host.{process}.log"


def attempts(
    folder: Folder,
    hosts: int,
    first: int = 0,
    after: str = "",
    known: Mapping[str, bytes | None] | None = None,
) -> list[Attempt]:
    """The attempts from incarnation `first` on, oldest first, by the records of each host.

    Args:
      after: leaves out this attempt and those before it.
      known: files that need not be read again, by their names.
    """
    files = attempt_files(folder, first, after)
    held = dict(known or {})
    held |= folder.read_many([f.name for f in files if f.is_exit and f.name not in held])
    found: dict[str, list[ExitRecord]] = {}
    for file in files:
        exits = found.setdefault(file.attempt, [])
        record = exit_record(folder, file, hosts, held[file.name]) if file.is_exit else None
        if record is not None:
            exits.append(record)
    ordered = {a: sorted(e, key=lambda r: r.process) for a, e in sorted(found.items())}
    return [Attempt(name, tuple(exits), hosts) for name, exits in ordered.items()]


def exit_record(
    folder: Folder, file: AttemptFile, hosts: int, data: bytes | None
) -> ExitRecord | None:
    """The record in a file; None if it is damaged or not of a host of the job, which is said."""
    raw = parsed_object(folder, file.name, data, {})
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


def attempt_files(folder: Folder, first: int = 0, after: str = "") -> list[AttemptFile]:
    """What agents have written from incarnation `first` on and after an attempt; a stranger's files
    beside them are passed over."""
    # "0" follows "/": the whole folder of the attempt sorts before it.
    start = max(attempt_folder(attempt_name(first, 0)), attempt_folder(after + "0") * bool(after))
    return [
        AttemptFile(parts[0], parts[1], int(parts[2]), parts[3] == "exit.json")
        for parts in own_files(folder, "launch/attempts", ATTEMPT_FILE, "of an agent", start)
    ]


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
    return trainer_statuses(folder, [process])[process]


def trainer_statuses(folder: Folder, processes: Iterable[int]) -> dict[int, dict | None]:
    """`trainer_status` of each process."""
    names = {process: f"status.{process}.json" for process in processes}
    held = folder.read_many(list(names.values()))
    return {process: _status(held[name], name) for process, name in names.items()}


def _status(data: bytes | None, name: str) -> dict | None:
    raw = parsed(data, name)
    if not isinstance(raw, dict) or not isinstance(raw.get("step"), int):
        return None
    return raw if isinstance(raw.get("phase"), str) else None


def stop_requested(folder: Folder) -> bool:
    return folder.read("launch/stop.json") is not None
