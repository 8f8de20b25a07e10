"""The JobSet of a job on GKE: its replicas are slices, admitted by Kueue if a queue is named.

docs/gke.md compares each field with what xpk writes.
"""

from __future__ import annotations

from typing import Any

from llm_jax.config.exits import CONFIG
from llm_jax.launch.backends.gke_gpu import add_fabric, fabric_machine
from llm_jax.launch.backends.gke_pod import pod, pod_annotations
from llm_jax.launch.spec import Gke, JobSpec

GROUP, VERSION, PLURAL = "jobset.x-k8s.io", "v1alpha2", "jobsets"
LABEL = "llm-jax/job"
OUT = "llm-jax/out"
# The agents stop a job that gets no further; this only has to be out of their way.
MAX_RESTARTS = 1000
# What is known of a job is in its output folder; the object is only in the way of the next one.
TTL_SECONDS = 12 * 3600


def manifest(spec: JobSpec, backend: Gke, incarnation: int) -> dict[str, Any]:
    """The JobSet, as JSON."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "JobSet",
        "metadata": _metadata(spec, backend),
        "spec": {
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "failurePolicy": {
                "maxRestarts": MAX_RESTARTS,
                "rules": [
                    {
                        "name": "nouse",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {
                    "name": "slice",
                    "replicas": spec.slices,
                    "template": {"spec": _job(spec, backend, incarnation)},
                }
            ],
        },
    }


def _metadata(spec: JobSpec, backend: Gke) -> dict[str, Any]:
    labels, annotations = {LABEL: spec.name}, {OUT: spec.out}
    if backend.queue is not None:
        labels["kueue.x-k8s.io/queue-name"] = backend.queue
        if spec.capacity == "flex-start":
            # Kueue passes it on to the ProvisioningRequest.
            seconds = str(backend.run_seconds)
            annotations["provreq.kueue.x-k8s.io/maxRunDurationSeconds"] = seconds
    if spec.slice_type.kind == "tpu":
        # One slice is one node pool; two Jobs must not share one.
        annotations["alpha.jobset.sigs.k8s.io/exclusive-topology"] = "cloud.google.com/gke-nodepool"
    return {
        "name": spec.name,
        "namespace": backend.namespace,
        "labels": labels,
        "annotations": annotations,
    }


def _job(spec: JobSpec, backend: Gke, incarnation: int) -> dict[str, Any]:
    """One slice: a pod for each of its machines."""
    machines = spec.slice_type.machines
    template: dict[str, Any] = {
        "metadata": {"labels": {LABEL: spec.name}, "annotations": pod_annotations(spec)},
        "spec": pod(spec, backend, incarnation),
    }
    if machine := fabric_machine(spec):
        add_fabric(template, machine, backend)
    agents = [c["name"] for c in template["spec"]["containers"]]
    return {
        "parallelism": machines,
        "completions": machines,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": name, "operator": "In", "values": [CONFIG]},
                }
                for name in agents
            ]
        },
        "template": template,
    }
