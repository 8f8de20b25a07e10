"""What a job says of the place where it runs: one frozen class for each back end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from llm_jax.config import require
from llm_jax.launch.forms import check_forms, check_text

SEVEN_DAYS = 7 * 86_400
"""Flex-start capacity ends after seven days at most (GKE, "About flex-start")."""


def seconds_of(time_limit: str) -> int:
    """Seconds of a time as Slurm writes it: MINUTES, MINUTES:SECONDS, HH:MM:SS, D-HH[:MM[:SS]]."""
    days, dash, rest = time_limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash or len(parts) == 3:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return int(days or 0) * 86_400 + hours * 3600 + minutes * 60 + seconds


@dataclass(frozen=True, kw_only=True)
class Local:
    """Several processes on this machine."""

    kind: Literal["local"] = "local"


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """One `sbatch` job; the output folder must be on a file system that all nodes share."""

    kind: Literal["slurm"] = "slurm"
    partition: str | None = None
    account: str | None = None
    time_limit: str | None = None
    """As sbatch writes it, such as `24:00:00`; the job requeues itself when it is reached."""
    setup: str = ""
    """Shell line that makes llm_jax importable on a node: `. /shared/.venv/bin/activate`."""
    switches: str | None = None
    """Most leaf switches between the nodes, and how long to wait for them: `1@12:00:00`."""

    def __post_init__(self) -> None:
        check_forms("slurm", self, "job.backend")
        check_text("job.backend.setup", self.setup)


@dataclass(frozen=True, kw_only=True)
class Tpu:
    """A queued resource of Cloud TPU VMs."""

    kind: Literal["tpu"] = "tpu"
    project: str
    zone: str
    runtime_version: str | None = None
    """TPU VM image; None takes the chip's own."""
    network: str | None = None
    subnetwork: str | None = None
    service_account: str | None = None
    external_ips: bool = True
    """The API's own default is False, and then pip cannot reach an index without Cloud NAT."""

    def __post_init__(self) -> None:
        check_forms("tpu", self, "job.backend")
        require(
            re.fullmatch(r"[a-z]+-[a-z]+\d{1,3}-[a-z0-9]{1,20}", self.zone) is not None,
            f"job.backend.zone is {self.zone!r}: name a zone such as us-east5-a, a region with the "
            "zone's letter behind it.",
        )


@dataclass(frozen=True, kw_only=True)
class Gke:
    """A JobSet on a Kubernetes cluster, admitted by Kueue if `queue` is set."""

    kind: Literal["gke"] = "gke"
    context: str | None = None
    """Context of the kubeconfig; None takes the current one."""
    namespace: str = "default"
    queue: str | None = None
    service_account: str | None = None
    """Kubernetes service account that may write to the output folder (Workload Identity)."""
    priority: str | None = None
    """PriorityClass of the pods."""
    time_limit: str | None = None
    """Longest time of flex-start capacity that the queue asks for, as Slurm writes it; None is the
    most, seven days."""
    placement_policy: str | None = None
    """Workload policy of the node pools, for pools that GKE makes when the job asks for them."""
    networks: str | None = None
    """Network objects of the GPUs' interfaces, with commas between; None: as Google's guides."""
    numa: bool = True
    """A trainer for each of the two NUMA nodes of a tpu7x machine; False: one for four chips."""

    def __post_init__(self) -> None:
        check_forms("gke", self, "job.backend")
        check_text("job.backend.context", self.context or "")
        require(
            0 < self.run_seconds <= SEVEN_DAYS,
            f"job.backend.time_limit is {self.time_limit!r}: flex-start capacity is given for at "
            "most seven days.",
        )

    @property
    def run_seconds(self) -> int:
        """`time_limit` in seconds."""
        return SEVEN_DAYS if self.time_limit is None else seconds_of(self.time_limit)


@dataclass(frozen=True, kw_only=True)
class SkyPilot:
    """A task file for `sky jobs launch`; nothing is started by llm-jax."""

    kind: Literal["skypilot"] = "skypilot"
    infra: str | None = None
    """As SkyPilot writes it, such as `gcp/us-central1`; None lets it choose."""

    def __post_init__(self) -> None:
        check_forms("skypilot", self, "job.backend")


Backend = Local | Slurm | Tpu | Gke | SkyPilot
