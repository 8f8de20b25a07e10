"""Slurm: one batch job that requeues itself; the agents are the tasks of its one step.

No supervisor outside is needed: lost nodes and time limits requeue the job, and the agents refuse
to start again once the records say that it would not help.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.facts.hardware import CHIPS
from llm_jax.launch.accelerators import Accelerator
from llm_jax.launch.actions import Action
from llm_jax.launch.backends import Resource
from llm_jax.launch.backends.slurm_nccl import nccl_lines
from llm_jax.launch.folder import LocalFolder
from llm_jax.launch.forms import check_text, shell_word, slurm_file
from llm_jax.launch.records import read_object, write_json
from llm_jax.launch.slurm_commands import (
    batch_script,
    job_fields,
    nodes_of,
    slurm_output,
    submitted,
)
from llm_jax.launch.spec import JobSpec, Slurm

JOB = "launch/slurm.json"
COMMENT = "llm-jax:"  # marks our jobs for `launch list`, with the output folder behind it

RUNNING = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"}
PREEMPTED = {"PREEMPTED"}
FAILED = {"BOOT_FAIL", "DEADLINE", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "LAUNCH_FAILED"}
# Completed, failed by the trainer, cancelled, or so long ago that Slurm has forgotten it.
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "REVOKED", ""}


@dataclass(frozen=True)
class SubmitBatch(Action):
    """`sbatch --parsable` with `script` on its standard input."""

    argv: tuple[str, ...]
    script: str


def render(spec: JobSpec, incarnation: int) -> list[Action]:
    return [SubmitBatch(("sbatch", "--parsable"), script(spec, incarnation))]


def script(spec: JobSpec, incarnation: int) -> str:
    """The batch script. Ends by requeueing itself if a host was lost or time is up."""
    backend = spec.backend
    assert isinstance(backend, Slurm)
    out = LocalFolder(spec.out).address
    check_text("job.out", out)  # a link may lead to a folder of any name
    of = spec.slice_type
    # The batch shell is signalled early enough for the agents to save and leave.
    options = [
        f"--job-name={spec.name}",
        f"--comment={COMMENT}{out}",
        f"--nodes={spec.hosts}",
        "--ntasks-per-node=1",
        f"--output={slurm_file(out)}/launch/slurm.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:TERM@{int(spec.grace_seconds) + 60}",
    ]
    if of.kind == "gpu":
        # Without the type, which each cluster spells in its own way; `check` looks at it.
        options.append(f"--gpus-per-node={of.chips_per_host}")
    if whole_machines(of):
        options += ["--exclusive", "--mem=0"]
    for flag, value in (
        ("partition", backend.partition),
        ("account", backend.account),
        ("time", backend.time_limit),
        ("switches", backend.switches),
    ):
        if value is not None:
            options.append(f"--{flag}={value}")
    agent = f"python3 -m llm_jax.launch.agent {shell_word(out)}"
    lines = [
        f"export LLM_JAX_INCARNATION={incarnation}",
        'export LLM_JAX_RESTARTS="${SLURM_RESTART_COUNT:-0}"',
        *(nccl_lines(of.machine) if spec.hosts > 1 else []),
        # As one word, so that an open quote in it cannot take in what follows.
        *([f"eval {shell_word(backend.setup)}"] if backend.setup else []),
        # A lost task must not take the others along: they notice it, save what they can and leave.
        f"srun --kill-on-bad-exit=0 --wait=0 --cpu-bind=none {agent} &",
        "step=$!",
        "trap 'kill -TERM \"$step\"' TERM",
        'wait "$step"; code=$?',
        "# A signal ends `wait` before the step has ended.",
        'while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done',
        f"[ -e {shell_word(out + '/launch/stop.json')} ] && exit 0",
        "# 75 preempted or out of time, 76 host lost, above 128 killed: what a new start can cure.",
        'case "$code" in',
        '  75 | 76 | 13[0-9] | 14[0-9]) scontrol requeue "$SLURM_JOB_ID" ;;',
        "esac",
        'exit "$code"',
    ]
    return batch_script(options, lines)


def whole_machines(of: Accelerator) -> bool:
    """Whether the job takes every GPU of its nodes: then it gets their cores and memory too."""
    return of.kind == "gpu" and of.chips_per_host == CHIPS[of.chip].chips_per_host


class Driver:
    restarts_itself = True

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.folder = LocalFolder(spec.out)

    def render(self, incarnation: int) -> list[Action]:
        return render(self.spec, incarnation)

    def check(self) -> None:
        backend = self.spec.backend
        assert isinstance(backend, Slurm)
        rows = nodes_of(backend.partition, "job.backend.partition")
        if self.spec.hosts > len(rows):
            where = f"partition {backend.partition}" if backend.partition else "this cluster"
            raise UserError(
                f"The job needs {counted(self.spec.hosts, 'node')}, and {where} has {len(rows)}: "
                "lower job.slices."
            )
        of = self.spec.slice_type
        fitting = [n for n, gres in rows.items() if gpus(gres, of.chip) >= of.chips_per_host]
        if of.kind == "gpu" and self.spec.hosts > len(fitting):
            seen = ", ".join(sorted(set(rows.values()))[:6])
            raise UserError(
                f"job.accelerator is {self.spec.accelerator!r}: the job needs "
                f"{counted(self.spec.hosts, 'node')} with "
                f"{counted(of.chips_per_host, f'{of.chip} GPU')}, and there are {len(fitting)} "
                f"(sinfo shows {seen}): name another partition or accelerator."
            )

    def apply(self, action: Action) -> None:
        assert isinstance(action, SubmitBatch)
        write_json(self.folder, JOB, {"id": int(submitted(action.argv, action.script))})

    def _id(self) -> int | None:
        held = read_object(self.folder, JOB, {"id": int})
        return held["id"] if held else None

    def resource(self) -> Resource:
        job = self._id()
        if job is None:
            return Resource("absent")
        fields = job_fields(str(job))
        state, why = fields.get("JobState", ""), fields.get("Reason", "")
        if state in RUNNING:
            return Resource("running", f"Slurm job {job}")
        if state in PREEMPTED:
            return Resource("preempted", f"Slurm job {job} was preempted")
        if state in FAILED:
            return Resource("failed", f"Slurm job {job} ended with {state} ({why})")
        if state in ENDED:
            return Resource("ended", f"Slurm job {job}")
        # Pending, held, suspended, or what a later Slurm has: the job is still there.
        return Resource("waiting", f"Slurm job {job} is {state}, {why}")

    def remove(self) -> None:
        job = self._id()
        if job is None:
            return
        if self.resource().state in ("running", "waiting"):
            # Only the batch shell gets the signal; it passes it to the agents, which save.
            slurm_output("scancel", "--batch", "--signal=TERM", str(job), missing_ok=True)
            self._wait(self.spec.grace_seconds + 10)
            slurm_output("scancel", str(job), missing_ok=True)
            self._wait(60)
        self.folder.delete(JOB)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.resource().state == "running" and time.monotonic() < until:
            time.sleep(1)

    def billable(self) -> list[str]:
        resource = self.resource()
        return [resource.detail] if resource.state in ("running", "waiting") else []


def listing() -> list[dict[str, str]]:
    """Our jobs of this user: name, state and output folder."""
    lines = slurm_output("squeue", "--me", "--noheader", "--format=%j|%T|%k").splitlines()
    rows = [line.split("|", 2) for line in lines]
    return [
        {"job": name, "state": state.lower(), "out": comment.removeprefix(COMMENT)}
        for name, state, comment in rows
        if comment.startswith(COMMENT)
    ]


def gpus(gres: str, chip: str) -> int:
    """GPUs of kind `chip` in a node's generic resources, such as `gpu:nvidia_h100:8(S:0-1)`.

    A type that names no chip of the table, or no type, may be any kind.
    """
    found = 0
    for kind, count in re.findall(r"gpu:(?:([\w.-]+):)?(\d+)", gres.lower()):
        named = [c for c in CHIPS if c in kind and CHIPS[c].kind == "gpu"]
        found += int(count) if not named or chip in named else 0
    return found
