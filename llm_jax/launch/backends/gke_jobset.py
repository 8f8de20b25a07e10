"""The JobSet of a job on GKE: its replicas are slices, and its pods run the agents."""

from __future__ import annotations

from typing import Any

from llm_jax.config.exits import CONFIG
from llm_jax.launch.accelerators import GKE_GPU_LABEL, GKE_TPU_LABEL
from llm_jax.launch.forms import kubernetes_word
from llm_jax.launch.mount import FUSE_OPTIONS, ROOT
from llm_jax.launch.spec import Gke, JobSpec

GROUP, VERSION, PLURAL = "jobset.x-k8s.io", "v1alpha2", "jobsets"
LABEL = "llm-jax/job"
OUT = "llm-jax/out"
# The agents stop a job that gets no further; this only has to be out of their way.
MAX_RESTARTS = 1000


def manifest(spec: JobSpec, backend: Gke, incarnation: int) -> dict[str, Any]:
    of = spec.slice_type
    labels = {LABEL: spec.name}
    annotations = {OUT: spec.out}
    if backend.queue is not None:
        labels["kueue.x-k8s.io/queue-name"] = backend.queue
    if of.kind == "tpu":
        # One slice is one node pool; two Jobs must not share one.
        annotations["alpha.jobset.sigs.k8s.io/exclusive-topology"] = "cloud.google.com/gke-nodepool"
    job = {
        "parallelism": of.hosts,
        "completions": of.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "agent",
                        "operator": "In",
                        "values": [CONFIG],
                    },
                }
            ]
        },
        "template": {
            "metadata": {
                "labels": {LABEL: spec.name},
                "annotations": {"gke-gcsfuse/volumes": "true"},
            },
            "spec": pod(spec, backend, incarnation),
        },
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "JobSet",
        "metadata": {
            "name": spec.name,
            "namespace": backend.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
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
                {"name": "slice", "replicas": spec.slices, "template": {"spec": job}}
            ],
        },
    }


def pod(spec: JobSpec, backend: Gke, incarnation: int) -> dict[str, Any]:
    of = spec.slice_type
    selector: dict[str, str] = {}
    tolerations: list[dict[str, str]] = []
    container: dict[str, Any] = {
        "name": "agent",
        "image": spec.image,
        "command": ["python3", "-m", "llm_jax.launch.agent", kubernetes_word(spec.out)],
        "env": [{"name": "LLM_JAX_INCARNATION", "value": str(incarnation)}, *_identity()],
        "volumeMounts": [{"name": "gcs", "mountPath": ROOT}],
    }
    made: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": int(spec.grace_seconds) + 30,
        "containers": [container],
        "volumes": [_buckets(host_network=of.kind == "tpu")],
    }
    if of.kind == "tpu":
        selector["cloud.google.com/gke-tpu-accelerator"] = GKE_TPU_LABEL[of.chip]
        selector["cloud.google.com/gke-tpu-topology"] = of.topology
        container["resources"] = {"limits": {"google.com/tpu": str(of.chips_per_host)}}
        # Slices talk to each other over the hosts' own network cards.
        made |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    elif of.kind == "gpu":
        selector["cloud.google.com/gke-accelerator"] = GKE_GPU_LABEL[of.chip]
        container["resources"] = {"limits": {"nvidia.com/gpu": str(of.chips_per_host)}}
    else:
        container["resources"] = {"requests": {"cpu": str(of.chips_per_host)}}
    if spec.capacity == "spot":
        selector["cloud.google.com/gke-spot"] = "true"
        tolerations.append(_toleration("cloud.google.com/gke-spot"))
    if spec.capacity == "flex-start":
        selector["cloud.google.com/gke-flex-start"] = "true"
        tolerations.append(_toleration("cloud.google.com/gke-flex-start"))
    if spec.reservation is not None:
        selector["cloud.google.com/reservation-name"] = spec.reservation
    if selector:
        made["nodeSelector"] = selector
    if tolerations:
        made["tolerations"] = tolerations
    if backend.service_account is not None:
        made["serviceAccountName"] = backend.service_account
    return made


def _buckets(host_network: bool) -> dict[str, Any]:
    """All buckets that the service account may see, as folders (GKE: Cloud Storage FUSE CSI driver,
    volume attributes)."""
    attributes = {"bucketName": "_", "mountOptions": ",".join(FUSE_OPTIONS)}
    if host_network:  # else the driver cannot tell whose pod it is
        attributes["hostNetworkPodKSA"] = "true"
    return {
        "name": "gcs",
        "csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes},
    }


def _toleration(key: str) -> dict[str, str]:
    return {"key": key, "operator": "Equal", "value": "true", "effect": "NoSchedule"}


def _identity() -> list[dict[str, Any]]:
    """Which host of which slice, and after how many restarts: from what JobSet writes on pods."""
    sources = {
        "LLM_JAX_SLICE": "metadata.labels['jobset.sigs.k8s.io/job-index']",
        "LLM_JAX_WORKER": "metadata.annotations['batch.kubernetes.io/job-completion-index']",
        "LLM_JAX_RESTARTS": "metadata.labels['jobset.sigs.k8s.io/restart-attempt']",
    }
    return [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in sources.items()
    ]
