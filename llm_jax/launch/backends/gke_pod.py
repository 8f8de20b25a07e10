"""The pod of one machine: its agents, the buckets, and a folder on the node's own disk."""

from __future__ import annotations

from typing import Any

from llm_jax.launch.accelerators import GKE_GPU_LABEL, GKE_TPU_LABEL
from llm_jax.launch.backends.gke_gpu import fabric_machine
from llm_jax.launch.forms import kubernetes_word
from llm_jax.launch.gpu_machines import MACHINES
from llm_jax.launch.mount import FUSE_OPTIONS, NODE_DISK, ROOT
from llm_jax.launch.spec import Gke, JobSpec

# The side car asks for 250m of CPU and 256 MiB by itself, and where its limits are set to that a
# checkpoint creeps or the side car is killed ("Configure the sidecar container", GKE). "0" is no
# limit, on Standard clusters. A machine with four chips has 112 CPUs and 192 GB at least.
SIDECAR = {f"gke-gcsfuse/{what}-limit": "0" for what in ("cpu", "memory", "ephemeral-storage")}
SIDECAR_OF_A_WHOLE_MACHINE = {"gke-gcsfuse/cpu-request": "4", "gke-gcsfuse/memory-request": "8Gi"}

# Files that are written at once without a copy on the node's disk, as Google sets it for most, but
# not all, machines with TPUs and GPUs ("Automated configurations"); 4 by itself.
MOUNT_OPTIONS = (*FUSE_OPTIONS, "write-global-max-blocks=1600")


def pod_annotations(spec: JobSpec) -> dict[str, str]:
    """What asks for the Cloud Storage FUSE side car, and gives it room."""
    of = spec.slice_type
    whole = of.kind != "cpu" and of.chips_per_host * of.hosts_per_machine >= 4
    return {
        "gke-gcsfuse/volumes": "true",
        **SIDECAR,
        **(SIDECAR_OF_A_WHOLE_MACHINE if whole else {}),
    }


def pod(spec: JobSpec, backend: Gke, incarnation: int) -> dict[str, Any]:
    """The pod's specification."""
    of = spec.slice_type
    made: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": int(spec.grace_seconds) + 30,
        "containers": [agent(spec, incarnation, part) for part in range(of.hosts_per_machine)],
        "volumes": [
            _buckets(host_network=of.kind == "tpu"),
            # On local SSD where the node pool was made with --ephemeral-storage-local-ssd.
            {"name": "local", "emptyDir": {}},
        ],
    }
    if of.kind == "tpu":
        # Slices talk to each other over the hosts' own network cards.
        made |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if selector := node_selector(spec, backend):
        made["nodeSelector"] = selector
    if tolerations := _tolerations(spec, backend):
        made["tolerations"] = tolerations
    if backend.service_account is not None:
        made["serviceAccountName"] = backend.service_account
    if backend.priority is not None:
        made["priorityClassName"] = backend.priority
    return made


def agent(spec: JobSpec, incarnation: int, part: int) -> dict[str, Any]:
    """The container of one agent and its trainer; `part` counts those of one machine."""
    of = spec.slice_type
    resources = {
        "tpu": {"limits": {"google.com/tpu": str(of.chips_per_host)}},
        "gpu": {"limits": {"nvidia.com/gpu": str(of.chips_per_host)}},
        "cpu": {"requests": {"cpu": str(of.chips_per_host)}},
    }
    env = [{"name": "LLM_JAX_INCARNATION", "value": str(incarnation)}, *_identity()]
    if of.hosts_per_machine > 1:
        env.append({"name": "LLM_JAX_SHARES_MACHINE", "value": "1"})
    return {
        "name": f"agent-{part}" if part else "agent",
        "image": spec.image,
        "command": ["python3", "-m", "llm_jax.launch.agent", kubernetes_word(spec.out)],
        "env": env,
        "volumeMounts": [
            {"name": "gcs", "mountPath": ROOT},
            {"name": "local", "mountPath": NODE_DISK},
        ],
        "resources": resources[of.kind],
    }


def capacity_label(spec: JobSpec, backend: Gke) -> str | None:
    """The node label, and taint, of the capacity that the job asks for."""
    queued = spec.capacity == "flex-start" and backend.queue is not None
    labels = {"spot": "gke-spot", "flex-start": "gke-queued" if queued else "gke-flex-start"}
    label = labels.get(spec.capacity)
    return label and f"cloud.google.com/{label}"


def node_selector(spec: JobSpec, backend: Gke) -> dict[str, str]:
    """Labels of the nodes that the job can use."""
    of = spec.slice_type
    selector: dict[str, str] = {}
    if of.kind == "tpu":
        selector["cloud.google.com/gke-tpu-accelerator"] = GKE_TPU_LABEL[of.chip]
        selector["cloud.google.com/gke-tpu-topology"] = of.topology
    elif of.kind == "gpu":
        machine = fabric_machine(spec) or of.machine
        label = MACHINES[machine].label if machine else GKE_GPU_LABEL[of.chip]
        selector["cloud.google.com/gke-accelerator"] = label
    if capacity := capacity_label(spec, backend):
        selector[capacity] = "true"
    if spec.reservation is not None:
        selector["cloud.google.com/reservation-name"] = spec.reservation
    if backend.placement_policy is not None:
        selector["cloud.google.com/placement-policy-name"] = backend.placement_policy
    return selector


def _tolerations(spec: JobSpec, backend: Gke) -> list[dict[str, str]]:
    made = []
    resource = {"tpu": "google.com/tpu", "gpu": "nvidia.com/gpu"}.get(spec.slice_type.kind)
    if resource:
        made.append({"key": resource, "operator": "Exists"})
    if capacity := capacity_label(spec, backend):
        made.append({"key": capacity, "operator": "Equal", "value": "true", "effect": "NoSchedule"})
    return made


def _buckets(host_network: bool) -> dict[str, Any]:
    """All buckets that the service account may see, as folders (GKE: Cloud Storage FUSE CSI driver,
    volume attributes)."""
    attributes = {"bucketName": "_", "mountOptions": ",".join(MOUNT_OPTIONS)}
    if host_network:  # else the driver cannot tell whose pod it is
        attributes["hostNetworkPodKSA"] = "true"
    return {
        "name": "gcs",
        "csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes},
    }


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
