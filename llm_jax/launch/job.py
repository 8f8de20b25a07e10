"""A job from outside: launch it, look at it, stop it. Needs nothing but its output folder.

`prepare` finds every mistake before anything is created; `actions` are then what `--dry-run`
prints and what is applied.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from llm_jax.config import RunConfig, UserError, load, require, to_dict
from llm_jax.config.extras import require_packages
from llm_jax.config.wording import counted
from llm_jax.launch.actions import Action, PutFile, SendCode, folder_actions
from llm_jax.launch.backends import Driver, Resource, driver
from llm_jax.launch.bucket import check_bucket
from llm_jax.launch.cause import decide, root_cause, sentence
from llm_jax.launch.cluster.saving import check_local
from llm_jax.launch.dataset import check_dataset, check_path
from llm_jax.launch.folder import Folder, check_writable, open_folder
from llm_jax.launch.guard import check_run, close_folder
from llm_jax.launch.history import all_have_left, next_incarnation, whole_history
from llm_jax.launch.lease import is_supervised
from llm_jax.launch.lock import Lock
from llm_jax.launch.parent import check_place
from llm_jax.launch.pinned import check_image
from llm_jax.launch.progress import progress
from llm_jax.launch.records import (
    attempt_files,
    attempt_folder,
    load_job,
    log_name,
    read_json,
    read_object,
    stop_requested,
    trainer_statuses,
    write_json,
)
from llm_jax.launch.spec import Gke, JobSpec
from llm_jax.launch.startup import start_failures
from llm_jax.runs.plan_file import plan_named

GOING = ("waiting", "running")
"""States of a back end whose hosts are there or asked for."""


def actions(spec: JobSpec, run: RunConfig, first: int, lock: Lock | None = None) -> list[Action]:
    """Everything that launching the job does, in order. Pure."""
    return [*folder_actions(spec, run, first, lock), *driver(spec).render(first)]


def prepare(
    spec: JobSpec,
    back: Driver,
    say: Callable[[str], None] = lambda text: None,
    run: RunConfig | None = None,
) -> tuple[RunConfig, int]:
    """Checks the job against the world; creates nothing but a probe in the output folder.

    Args:
      say: hears of what could not be checked.
      run: what is to be trained, if it is not `spec.config` as it is.

    Returns:
      The run that will be trained, and the incarnation that this launch begins with.

    Raises:
      UserError: one sentence on the first thing that would go wrong.
    """
    run = run or load(spec.config)
    check_packages(spec)
    check_given(spec, run)
    check_dataset(spec, run, say)
    folder = open_folder(spec.out)
    unseen = check_bucket(folder)
    if unseen:
        say(f"warning: {unseen}")
    _check_owner(folder, spec, run)
    back.check()
    check_cluster(spec, run, back, say)
    check_writable(folder)
    close_folder(folder, say)
    return run, next_incarnation(folder)


def check_given(spec: JobSpec, run: RunConfig) -> None:
    """Raises `UserError` for what can be seen in the job and its run alone, without a network."""
    check_mesh(spec, run)
    check_run(spec, to_dict(run))
    check_local(spec, run)
    check_image(spec.image)
    check_path(spec, run)
    check_place(spec)
    driver(spec).render(0)  # which finds what no form of a field tells


def check_mesh(spec: JobSpec, run: RunConfig) -> None:
    """Raises `ConfigError` unless the run's mesh has the devices of `spec`: found out on the hosts,
    it would have cost money."""
    count = spec.slices * spec.slice_type.devices
    axes = ("replica", "pipeline", "fsdp", "expert", "context", "tensor")
    inner = math.prod(getattr(run.parallel, axis) for axis in axes)
    data = run.parallel.data
    plan = plan_named(spec.config)
    planned = f" It was planned for {plan.machine}." if plan else ""
    require(
        count % inner == 0 if data == -1 else data * inner == count,
        f"The run's mesh has {counted(inner if data == -1 else data * inner, 'device')}"
        f"{' or a multiple of that' if data == -1 else ''}, and {spec.slices} x "
        f"{spec.accelerator} has {count}: change job.accelerator, job.slices or the run's "
        f"parallel axes.{planned}",
    )


def check_cluster(spec: JobSpec, run: RunConfig, back: Driver, say: Callable[[str], None]) -> None:
    """Looks at the job's GKE cluster; other back ends have none, and a job that is there already
    creates nothing.

    Args:
      say: hears of warnings.

    Raises:
      UserError: the first thing without which the job cannot run.
    """
    if not isinstance(spec.backend, Gke) or back.resource().state in GOING:
        return
    from llm_jax.launch.cluster.preflight import findings

    found = findings(spec, run)
    for one in found:
        if one.level == "warning":
            say(f"warning: {one.sentence}")
    if errors := [one.sentence for one in found if one.level == "error"]:
        more = f" ({counted(len(errors) - 1, 'more error')}: see llm-jax launch preflight)"
        raise UserError(errors[0] + (more if len(errors) > 1 else ""))


PACKAGES = {"tpu": ["google.cloud.tpu_v2"], "gke": ["kubernetes"], "skypilot": ["yaml"]}


def check_packages(spec: JobSpec) -> None:
    """Raises `UserError` if a client that launching on this back end needs is not installed."""
    kind = spec.backend.kind
    bucket = ["google.cloud.storage"] if spec.out.startswith("gs://") else []
    require_packages(f"Launching on the {kind} back end", *PACKAGES.get(kind, []), *bucket)


def _check_owner(folder: Folder, spec: JobSpec, run: RunConfig) -> None:
    held = read_object(folder, "launch/job.json", {"spec": {"name": str}})
    owner = held["spec"]["name"] if held else None
    if owner not in (None, spec.name):
        raise UserError(
            f"The output folder {folder.address} belongs to the job {owner!r}: choose another."
        )
    trained = read_json(folder, "run.json")
    if isinstance(trained, dict) and trained.get("name") != run.name:
        raise UserError(
            f"The output folder {folder.address} holds the run {trained.get('name')!r}, and the "
            f"job would train {run.name!r}: choose another."
        )


def store(spec: JobSpec, run: RunConfig, first: int, lock: Lock | None = None) -> None:
    """Applies the actions that concern the output folder; allocating hosts is the supervisor's."""
    folder = open_folder(spec.out)
    folder.delete("launch/stop.json")
    for action in folder_actions(spec, run, first, lock):
        assert isinstance(action, PutFile | SendCode)
        action.apply()


def status(out: str) -> dict[str, Any]:
    """What `launch status` prints: job, back end, state, step, attempts and root cause."""
    folder = open_folder(out)
    spec, first = load_job(folder)
    resource = driver(spec).resource()
    past = whole_history(folder, spec.hosts, first)
    decision = decide(past, spec.retries, spec.backoff_seconds)
    reports = trainer_statuses(folder, range(spec.hosts)).values()
    shown = progress(folder)
    # A launch of a run that has been launched before begins where that ended.
    steps = [r["step"] for r in [*reports, shown] if r] + [a.step for a in past]
    return {
        "job": spec.name,
        "backend": spec.backend.kind,
        "state": _state(resource, decision.action, folder, bool(past)),
        "detail": resource.detail,
        "out": folder.address,
        "hosts": spec.hosts,
        "step": max(steps, default=-1),
        "phase": next((r["phase"] for r in reports if r), None),
        "attempts": [_attempt(a) for a in past],
        "cause": decision.cause,
        "progress": shown,
        "start_failures": [asdict(one) for one in start_failures(folder, spec, first)],
    }


def _state(resource: Resource, action: str, folder: Folder, tried: bool) -> str:
    stop = stop_requested(folder)
    if resource.state in ("waiting", "running", "preempted"):
        return "stopping" if stop else resource.state
    if action == "finished":
        return "finished"
    if stop:
        return "stopped"
    if action == "stop":
        return "failed"
    if is_supervised(folder):  # which is about to make the next allocation
        return "waiting"
    if resource.state == "failed":
        return "failed"
    return "interrupted" if tried else "not started"


def _attempt(attempt: Any) -> dict[str, Any]:
    cause = root_cause(attempt)
    ended = cause is not None or attempt.finished
    return {
        "attempt": attempt.name,
        "state": "finished" if attempt.finished else "ended" if ended else "open",
        "step": attempt.step,
        "cause": sentence(cause) if cause else "",
        "hosts": [asdict(record) for record in attempt.exits],
    }


def stop(out: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Stops the job: lets it save, gives the hosts back, and lists what may still cost money.

    Calling it again is harmless; it then only looks for leftovers.
    """
    folder = open_folder(out)
    spec, first = load_job(folder)
    back = driver(spec)
    if not stop_requested(folder):
        write_json(folder, "launch/stop.json", {"time": time.time()})
    if back.resource().state == "running":
        hosts, seconds = counted(spec.hosts, "host"), spec.grace_seconds
        say(f"asked {hosts} to save and leave, for up to {seconds:.0f} s")
        _wait_for_agents(folder, spec, first, back)
    back.remove()
    return {
        "job": spec.name,
        "backend": spec.backend.kind,
        "state": status(out)["state"],
        "billable": back.billable(),
    }


def _wait_for_agents(folder: Folder, spec: JobSpec, first: int, back: Driver) -> None:
    until = time.monotonic() + spec.grace_seconds + 30
    while time.monotonic() < until and back.resource().state == "running":
        if all_have_left(folder, spec.hosts, first):
            return
        time.sleep(1)


class Logs:
    """The merged output of all hosts, attempt after attempt; `more` returns what is new."""

    def __init__(self, out: str, host: int | None = None) -> None:
        self.folder = open_folder(out)
        self.spec, self.first = load_job(self.folder)
        self.hosts = range(self.spec.hosts) if host is None else [host]
        if host is not None and not 0 <= host < self.spec.hosts:
            raise UserError(f"--host is {host}: the job has hosts 0 to {self.spec.hosts - 1}.")
        self.offsets: dict[str, int] = {}

    def more(self) -> list[tuple[str, int, str]]:
        """(attempt, host, line) for each complete line written since the last call."""
        lines = []
        files = attempt_files(self.folder, self.first)
        ended = {file.attempt for file in files if file.is_exit}
        for attempt in sorted({file.attempt for file in files}):
            for host in self.hosts:
                data = self._read(attempt, host)
                end = len(data) if attempt in ended else data.rfind(b"\n") + 1
                self.offsets[log_name(attempt, host)] += end
                for line in data[:end].decode(errors="replace").splitlines():
                    lines.append((attempt, host, line))
        return lines

    def _read(self, attempt: str, host: int) -> bytes:
        """What is new in a log; that of an older version lies beside the host's records."""
        name = log_name(attempt, host)
        start = self.offsets.setdefault(name, 0)
        older = f"{attempt_folder(attempt)}/host.{host}.log"
        return self.folder.read_log(name, start) or self.folder.read_log(older, start)
