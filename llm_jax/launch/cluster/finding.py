"""What a look at the cluster found: one sentence, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config import RunConfig
from llm_jax.launch.cluster.google import Google
from llm_jax.launch.cluster.kube import Kube
from llm_jax.launch.spec import Gke, JobSpec

Level = Literal["ok", "warning", "error"]
"""`error`: the job cannot run. `warning`: it could not be seen, or it may cost time or money."""


@dataclass(frozen=True)
class Finding:
    check: str
    """Name of the check, such as `queue`."""
    level: Level
    sentence: str


@dataclass(frozen=True)
class World:
    """The job, and where it would run."""

    spec: JobSpec
    run: RunConfig
    backend: Gke
    kube: Kube
    google: Google | None
    """None: the kubeconfig does not tell which cluster of which project it is."""

    @property
    def resource(self) -> str:
        """The resource that the pods ask for."""
        return {"tpu": "google.com/tpu", "gpu": "nvidia.com/gpu", "cpu": "cpu"}[
            self.spec.slice_type.kind
        ]

    @property
    def chips(self) -> int:
        """Chips (GPUs, CPUs) of the whole job."""
        of = self.spec.slice_type
        return self.spec.slices * of.hosts * of.chips_per_host
