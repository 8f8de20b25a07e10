"""Every check of a cluster against a job. Nothing is created."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llm_jax.config import RunConfig, UserError
from llm_jax.launch.backends.gke_api import make_client
from llm_jax.launch.cluster.capacity import capacity
from llm_jax.launch.cluster.finding import Finding, World
from llm_jax.launch.cluster.google import google_of
from llm_jax.launch.cluster.kube import Kube
from llm_jax.launch.cluster.pools import pools
from llm_jax.launch.cluster.queue import queue
from llm_jax.launch.cluster.reservation import reservation
from llm_jax.launch.cluster.saving import grace
from llm_jax.launch.cluster.software import controllers, driver, gpu_network, names, version
from llm_jax.launch.cluster.storage import buckets
from llm_jax.launch.spec import Gke, JobSpec

CHECKS: dict[str, Callable[[World], Iterator[Finding]]] = {
    "version": version,
    "jobset": controllers,
    "storage driver": driver,
    "names": names,
    "queue": queue,
    "gpu network": gpu_network,
    "project": pools,
    "nodes": capacity,
    "reservation": reservation,
    "bucket": buckets,
    "grace": grace,
}


def findings(spec: JobSpec, run: RunConfig, client: Any = None) -> list[Finding]:
    """What all checks found, in their order.

    Args:
      client: of the Kubernetes API; None makes it from the kubeconfig.

    Raises:
      UserError: there is no cluster to ask, or it does not answer.
    """
    backend = spec.backend
    assert isinstance(backend, Gke)
    kube = Kube(client or make_client(backend.context))
    kube.version()  # a cluster that does not answer is one sentence, not eleven
    world = World(spec, run, backend, kube, google_of(backend.context))
    found: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            for one in check(world):
                found.append(one)  # what it saw before an error counts
        except (UserError, OSError) as error:
            reason = str(error).rstrip(".")
            found.append(Finding(name, "warning", f"Could not look at {name}: {reason}."))
    return found
