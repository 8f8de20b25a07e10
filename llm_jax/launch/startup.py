"""What the start-up script of a VM leaves behind: `startup/HOSTNAME.json`, however it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_jax.config.exits import CONFIG, FINISHED, PREEMPTED
from llm_jax.launch.folder import Folder
from llm_jax.launch.records import attempt_files, attempt_folder, pass_over, read_object
from llm_jax.launch.spec import JobSpec

FOLDER = "startup"
SHAPE = {
    "host": str,
    "slice": str,
    "worker": str,
    "incarnation": str,
    "stage": str,
    "code": int,
    "sentence": str,
    "time": int,
}
PROPER = (FINISHED, PREEMPTED, CONFIG)
"""Ends that the agent gives, which it has recorded itself."""
MOST_READ = 64
"""Records that are read; of 2,000 hosts that fail alike, more would tell nothing new."""


@dataclass(frozen=True)
class StartFailure:
    """A host whose start-up script ended before an agent could do its work."""

    host: str
    process: int | None
    """Number in the gang; None if the host never learned it."""
    stage: str
    """`metadata`, `install`, `mount` or `agent`."""
    code: int
    sentence: str

    def __str__(self) -> str:
        number = "" if self.process is None else f" (host {self.process})"
        return f"{self.host}{number} failed at {self.stage}: {self.sentence}"


def start_failures(folder: Folder, spec: JobSpec, first: int) -> list[StartFailure]:
    """Hosts of the newest allocation that failed to start and have not started since, by number.

    Of many records only the newest `MOST_READ` are read, which is said.

    Args:
      first: incarnation that the launch began with; a host that knows none counts to it.
    """
    records = _records(folder)
    if not records:
        return []
    incarnations = [_number(raw["incarnation"], first) for raw in records]
    newest = max(first, *incarnations)
    attempt = max((file.attempt for file in attempt_files(folder, newest)), default=None)
    if attempt is not None:
        newest = int(attempt.split(".")[0])
    failures = []
    for raw, incarnation in zip(records, incarnations, strict=True):
        failure = StartFailure(
            raw["host"], _process(raw, spec), raw["stage"], raw["code"], raw["sentence"]
        )
        if (
            incarnation == newest
            and raw["code"] not in PROPER
            and not _started_since(folder, attempt, failure.process, _since(raw))
        ):
            failures.append(failure)
    return sorted(failures, key=lambda one: (one.process is None, one.process, one.host))


def _records(folder: Folder) -> list[dict[str, Any]]:
    versions = {n: int(v) for n, v in folder.names(FOLDER).items() if n.endswith(".json")}
    # Those of allocations before, on machines of other names, are still there.
    newest = sorted(versions, key=lambda name: (-versions[name], name))[:MOST_READ]
    if len(versions) > len(newest):
        what = f"all but the newest {MOST_READ} of {len(versions):,} records in {FOLDER}/"
        pass_over(folder.address, what)
    read = (read_object(folder, name, SHAPE) for name in newest)
    return [raw for raw in read if raw is not None]


def _number(text: str, default: int) -> int:
    return int(text) if text.isdecimal() else default


def _process(raw: dict[str, Any], spec: JobSpec) -> int | None:
    slice_, worker = _number(raw["slice"], -1), _number(raw["worker"], -1)
    return None if -1 in (slice_, worker) else slice_ * spec.slice_type.hosts + worker


def _since(raw: dict[str, Any]) -> int:
    """After which moment a sign of life says that the host has started. A script that was stopped
    while its agent ran, as every preempted one is, writes its record after the agent's signs."""
    return 0 if raw["stage"] == "agent" else raw["time"]


def _started_since(folder: Folder, attempt: str | None, process: int | None, time: int) -> bool:
    if attempt is None or process is None:
        return False
    there = read_object(folder, f"{attempt_folder(attempt)}/host.{process}.json", {"time": float})
    return there is not None and there["time"] > time
