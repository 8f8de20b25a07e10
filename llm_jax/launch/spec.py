"""The job as frozen data: what to train, on what, where its output goes, how it may fail.

A `JobSpec` holds no secrets and is stored with the job (`launch/job.json` in the output folder),
so that `status`, `logs` and `stop` need nothing but that folder. Strict JSON, like `RunConfig`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llm_jax.config import ConfigError, require
from llm_jax.config.wording import counted
from llm_jax.launch.accelerators import TPU_RUNTIME, Accelerator, accelerator
from llm_jax.launch.forms import (
    LONGEST_WORD,
    check_address,
    check_digests,
    check_environment,
    check_forms,
    check_text,
)
from llm_jax.launch.guard import check_secrets
from llm_jax.launch.places import Backend, Gke, Local, SkyPilot, Slurm, Tpu

MOST_HOSTS = 65_536
"""Of a job; the largest that were published have a quarter of it."""
MOST_PROCESSES = 256
"""Of a job on one machine."""
MOST_SECONDS = 43_200.0
"""Of a wait in a job. Slurm signals a job at most 65,535 s before its end."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds without any progress after which the agent dumps stacks and kills the trainer."""

    startup: float = 900
    compile: float = 3600
    restore: float = 1800
    step: float = 600
    eval: float = 1800
    save: float = 1800
    heartbeat: float = 120
    """An agent that was silent for so long counts as lost with its host."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(0 < value < math.inf, f"limits.{name} is {value}: give seconds above 0.")


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One job, for any back end."""

    name: str
    """Lower-case letters, digits and dashes: it becomes a label and a host name in clouds."""
    config: str
    """Recipe or `run.json`."""
    out: str
    """Folder of the run on a file system that every host sees, or `gs://bucket/folder`."""
    accelerator: str = "cpu-1"
    slices: int = 1
    """TPU slices, or machines for GPU and CPU accelerators."""
    backend: Backend = field(default_factory=Local)
    code: str | None = None
    """Folder that is packed and sent to the hosts, which install it with pip."""
    image: str | None = None
    """Container image that holds llm_jax, by its digest; instead of `code`."""
    init: str | None = None
    """Run (`RUN` or `RUN@STEP`) with whose weights the run begins."""
    branch: str | None = None
    """Run of which the run is a branch; instead of `init`."""
    sha256: dict = field(default_factory=dict)
    """Of what hosts install, by file in `launch/`. `launch run` fills it in."""
    capacity: Literal["on-demand", "spot", "reserved", "flex-start"] = "on-demand"
    reservation: str | None = None
    retries: int = 3
    """Restarts without an advanced step before the job counts as failed."""
    backoff_seconds: float = 5
    """Wait before the second restart without progress; doubles up to five minutes."""
    grace_seconds: float = 120
    """Time to save between SIGTERM and SIGKILL."""
    rendezvous_seconds: float = 900
    """All hosts must be there by then, or the attempt ends and names the missing ones."""
    limits: Limits = field(default_factory=Limits)
    trainer: list = field(default_factory=list)
    """Command in place of `llm-jax train`, with the run.json behind it. It must write the same
    status files and use the same exit codes."""
    env: dict = field(default_factory=dict)
    """Environment of the trainer, name → value; no secrets."""

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name) is not None,
            f"job.name is {self.name!r}: use at most 40 lower-case letters, digits and dashes, "
            "a letter first.",
        )
        require(self.out != "", "job.out is empty: name the folder of the run.")
        for name in ("config", "out", "code", "init", "branch"):
            check_text(f"job.{name}", getattr(self, name) or "")
        if self.out.startswith("gs://"):
            check_address("job.out", self.out)
        check_forms("job", self, "job")
        require(self.slices > 0, f"job.slices is {self.slices}: it must be above 0.")
        require(
            self.hosts <= MOST_HOSTS,
            f"job.slices is {self.slices} and job.accelerator is {self.accelerator!r}: a job has "
            f"at most {MOST_HOSTS:,} hosts.",
        )
        require(self.retries >= 0, f"job.retries is {self.retries}: it must not be negative.")
        for name in ("backoff_seconds", "grace_seconds", "rendezvous_seconds"):
            value = getattr(self, name)
            require(
                0 < value <= MOST_SECONDS,
                f"job.{name} is {value}: it must be above 0, and at most {MOST_SECONDS:,.0f}.",
            )
        require(
            not (self.code and self.image),
            "job.code and job.image are both set: send the code or name an image that holds it.",
        )
        begun = self.init or self.branch
        require(
            not (self.init and self.branch),
            "job.init and job.branch are both set: init begins with weights alone, and branch goes "
            "on with everything.",
        )
        require(
            not (begun and self.trainer),
            f"job.trainer is set, and the run begins with {begun!r}: only `llm-jax train` does so.",
        )
        require(
            (self.capacity == "reserved") == (self.reservation is not None),
            f"job.capacity is {self.capacity!r} and job.reservation is {self.reservation!r}: "
            "a reservation goes with capacity 'reserved', and with that alone.",
        )
        require(
            all(isinstance(word, str) and word for word in self.trainer),
            f"job.trainer is {self.trainer!r}: give a list of words.",
        )
        for word in self.trainer:
            check_text("job.trainer", word.translate({9: None, 10: None}), most=LONGEST_WORD)
        check_digests(self.sha256)
        check_environment(self.env)
        check_secrets(self)
        check_backend(self)

    @property
    def slice_type(self) -> Accelerator:
        of = accelerator(self.accelerator)
        split = isinstance(self.backend, Gke) and self.backend.numa
        return of.by_numa_node() if split else of

    @property
    def hosts(self) -> int:
        """Hosts of the whole gang, one trainer process on each."""
        return self.slices * self.slice_type.hosts


def check_backend(spec: JobSpec) -> None:
    """Raises `ConfigError` if the back end cannot do what the rest of the job asks for."""
    of, backend = spec.slice_type, spec.backend
    in_bucket = spec.out.startswith("gs://")
    if isinstance(backend, Local | Slurm):
        kinds = ("cpu",) if isinstance(backend, Local) else ("cpu", "gpu")
        unknown = of.kind not in kinds and not (isinstance(backend, Local) and spec.hosts == 1)
        require(
            not unknown,
            f"job.accelerator is {spec.accelerator!r} with {counted(spec.hosts, 'host')}, which "
            f"the {backend.kind} back end does not have: it starts {' or '.join(kinds)} machines.",
        )
        require(
            isinstance(backend, Slurm) or spec.hosts <= MOST_PROCESSES,
            f"job.slices is {spec.slices}: one machine runs at most {MOST_PROCESSES} processes, "
            "name another back end.",
        )
        require(
            not (in_bucket and isinstance(backend, Slurm)),
            f"job.out is {spec.out!r}: the slurm back end needs a folder that all nodes share.",
        )
        require(
            spec.capacity == "on-demand",
            f"job.capacity is {spec.capacity!r}: the {backend.kind} back end knows only "
            "'on-demand'.",
        )
        require(
            not spec.image and not spec.code,
            f"job.image and job.code do not go with the {backend.kind} back end: it runs the "
            "llm_jax that is installed there.",
        )
    if isinstance(backend, Tpu) or (isinstance(backend, SkyPilot) and of.kind == "tpu"):
        require(
            of.chip in TPU_RUNTIME,
            f"job.accelerator is {spec.accelerator!r}, which the {backend.kind} back end does not "
            f"offer: use {', '.join(TPU_RUNTIME)}"
            + (" (tpu7x runs on the gke back end)." if of.chip == "tpu7x" else "."),
        )
    if isinstance(backend, Tpu):
        require(
            spec.capacity != "flex-start",
            "job.capacity is 'flex-start', which the tpu back end does not offer: "
            "use the gke back end, or 'spot'.",
        )
    if isinstance(backend, SkyPilot):
        require(
            spec.capacity in ("on-demand", "spot"),
            f"job.capacity is {spec.capacity!r}, which the skypilot back end does not offer: "
            "use 'on-demand' or 'spot'.",
        )
    if isinstance(backend, Gke):
        require(spec.image is not None, "job.image is missing: pods run a container image.")
        require(
            backend.time_limit is None or spec.capacity == "flex-start",
            f"job.backend.time_limit is {backend.time_limit!r} and job.capacity is "
            f"{spec.capacity!r}: on GKE a time limit goes with capacity 'flex-start' alone.",
        )
        require(
            backend.time_limit is None or backend.queue is not None,
            f"job.backend.time_limit is {backend.time_limit!r} without a queue, which would pass "
            "it on: name one with --queue, or give the node pool a --max-run-duration.",
        )
    if isinstance(backend, Tpu | Gke | SkyPilot):
        require(
            in_bucket,
            f"job.out is {spec.out!r}: hosts of the {backend.kind} back end share no file system, "
            "so give a gs://bucket/folder.",
        )
    if isinstance(backend, Tpu | SkyPilot):
        require(
            (spec.code is None) != (spec.image is None),
            f"job.code and job.image: the {backend.kind} back end needs one of them to get "
            "llm_jax onto the hosts.",
        )
    if spec.code is not None and not (Path(spec.code) / "pyproject.toml").is_file():
        raise ConfigError(
            f"job.code is {spec.code!r}, which holds no pyproject.toml: name a folder that pip "
            "can install."
        )
