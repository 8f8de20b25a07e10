"""Several processes on this machine: the reference that the other back ends are measured by."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import UserError
from llm_jax.config.exits import CONFIG, FINISHED, PEER_LOST, PREEMPTED
from llm_jax.launch.actions import Action
from llm_jax.launch.backends import Resource
from llm_jax.launch.cause import signal_name
from llm_jax.launch.folder import LocalFolder, real_path
from llm_jax.launch.records import read_object, write_json
from llm_jax.launch.spec import JobSpec

PIDS = "launch/local.json"
HELD = {"hostname": str, "pids": {str: int}}
DEVICES = {"tpu": ("accel*", "vfio/[0-9]*"), "gpu": ("nvidia[0-9]*",)}
GONE = -1  # it ended, and since it was not our child nobody knows how


@dataclass(frozen=True)
class StartAgent(Action):
    process: int
    argv: tuple[str, ...]
    env: dict[str, str]
    """Added to this environment."""
    log: str


def render(spec: JobSpec, incarnation: int) -> list[Action]:
    out = real_path(spec.out)
    return [
        StartAgent(
            process=process,
            argv=(sys.executable, "-m", "llm_jax.launch.agent", str(out)),
            env={"LLM_JAX_PROCESS": str(process), "LLM_JAX_INCARNATION": str(incarnation)},
            log=str(out / f"launch/agent.{process}.log"),
        )
        for process in range(spec.hosts)
    ]


class Driver:
    restarts_itself = False

    def __init__(self, spec: JobSpec) -> None:
        if spec.out.startswith("gs://"):
            raise UserError(f"job.out is {spec.out!r}: the local back end needs a local folder.")
        self.spec = spec
        self.folder = LocalFolder(spec.out)
        self.children: dict[int, subprocess.Popen] = {}

    def render(self, incarnation: int) -> list[Action]:
        return render(self.spec, incarnation)

    def check(self) -> None:
        of = self.spec.slice_type
        here = sum(len([*Path("/dev").glob(names)]) for names in DEVICES.get(of.kind, ()))
        if of.kind in DEVICES and here < of.chips_per_host:
            devices = f"{here or 'no'} {of.kind.upper()}{'s' * (here > 1)}"
            raise UserError(
                f"job.accelerator is {self.spec.accelerator!r}, and this machine has {devices}: "
                "use cpu-1, or another back end."
            )
        self._check_machine()

    def _check_machine(self) -> None:
        """Raises `UserError` if the job's processes are on another machine."""
        held = read_object(self.folder, PIDS, HELD)
        if held and held["hostname"] != socket.gethostname():
            raise UserError(
                f"The job runs on the machine {held['hostname']}: stop it there first, "
                f"or remove {self.folder.path / PIDS} if that machine is gone."
            )

    def apply(self, action: Action) -> None:
        assert isinstance(action, StartAgent)
        log = Path(action.log)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                action.argv,
                env={**os.environ, **action.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.children[action.process] = child
        pids = self._pids() if action.process else {}
        pids[action.process] = child.pid
        held = {"hostname": socket.gethostname(), "pids": {str(p): pid for p, pid in pids.items()}}
        write_json(self.folder, PIDS, held)

    def _pids(self) -> dict[int, int]:
        held = read_object(self.folder, PIDS, HELD) or {"pids": {}}
        return {int(p): pid for p, pid in held["pids"].items() if p.isdecimal() and pid > 1}

    def _code(self, process: int, pid: int) -> int | None:
        """Exit code of an agent, None while it runs."""
        child = self.children.get(process)
        if child is not None and child.pid == pid:
            return child.poll()
        return None if _is_agent(pid, self.folder.address) else GONE

    def resource(self) -> Resource:
        codes = {p: self._code(p, pid) for p, pid in self._pids().items()}
        if not codes:
            return Resource("absent")
        proper = (None, FINISHED, PREEMPTED, PEER_LOST, CONFIG, GONE)
        lost = {p: code for p, code in codes.items() if code not in proper}
        if lost:
            code = lost[min(lost)]
            assert code is not None
            how = f"killed by {signal_name(-code)}" if code < 0 else f"exit code {code}"
            return Resource("failed", f"its agent ended ({how})", tuple(sorted(lost)))
        if all(code is not None for code in codes.values()):
            return Resource("ended")
        return Resource("running")

    def remove(self) -> None:
        pids = self._pids()
        if pids:
            self._check_machine()
        for number, patience in (
            (signal.SIGTERM, self.spec.grace_seconds + 10),
            (signal.SIGKILL, 10),
        ):
            running = [p for p in pids if self._code(p, pids[p]) is None]
            for process in running:
                os.kill(pids[process], number)
            until = time.monotonic() + patience
            while any(self._code(p, pids[p]) is None for p in running):
                if time.monotonic() > until:
                    break
                time.sleep(0.05)
        self.folder.delete(PIDS)

    def billable(self) -> list[str]:
        running = [(p, pid) for p, pid in self._pids().items() if self._code(p, pid) is None]
        return [f"process {pid} on this machine (host {p})" for p, pid in running]


def _is_agent(pid: int, out: str) -> bool:
    """Whether the process is an agent of this job, and not a later one with the same number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"llm_jax.launch.agent" in words and out.encode() in words
