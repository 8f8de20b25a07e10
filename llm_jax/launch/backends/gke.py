"""Kubernetes, made for GKE: one JobSet, whose replicas are slices; admitted by Kueue if asked.

The JobSet controller replaces lost pods by restarting the whole set, so no supervisor outside is
needed. How often is bounded by the agents, which read the records of all attempts: pods that leave
with 78 make the JobSet fail at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.exits import CONFIG
from llm_jax.config.extras import require_packages
from llm_jax.config.wording import counted
from llm_jax.launch.accelerators import GKE_GPU_LABEL, GKE_TPU_LABEL
from llm_jax.launch.actions import Action
from llm_jax.launch.backends import Resource
from llm_jax.launch.forms import kubernetes_word
from llm_jax.launch.mount import FUSE_OPTIONS, ROOT
from llm_jax.launch.spec import Gke, JobSpec

GROUP, VERSION, PLURAL = "jobset.x-k8s.io", "v1alpha2", "jobsets"
LABEL = "llm-jax/job"
OUT = "llm-jax/out"
# The agents stop a job that gets no further; this only has to be out of their way.
MAX_RESTARTS = 1000


@dataclass(frozen=True)
class CreateJobSet(Action):
    namespace: str
    manifest: dict[str, Any]


def render(spec: JobSpec, incarnation: int) -> list[Action]:
    backend = spec.backend
    assert isinstance(backend, Gke)
    return [CreateJobSet(backend.namespace, manifest(spec, backend, incarnation))]


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


class Driver:
    restarts_itself = True
    poll = 2.0

    def __init__(self, spec: JobSpec, client: Any = None) -> None:
        assert isinstance(spec.backend, Gke)
        self.spec, self.backend = spec, spec.backend
        self._given = client

    @property
    def client(self) -> Any:
        if self._given is None:
            self._given = make_client(self.backend.context)
        return self._given

    def _custom(self, method: str, *arguments: Any, **named: Any) -> Any:
        client = self.client
        from kubernetes.client import CustomObjectsApi

        api = CustomObjectsApi(client)
        place = (GROUP, VERSION, self.backend.namespace, PLURAL)
        return _call(getattr(api, method), *place, *arguments, **named)

    def _get(self) -> dict[str, Any] | None:
        return self._custom("get_namespaced_custom_object", self.spec.name)

    def render(self, incarnation: int) -> list[Action]:
        return render(self.spec, incarnation)

    def check(self) -> None:
        if self._custom("list_namespaced_custom_object", limit=1) is None:
            raise UserError("The cluster has no JobSets: install the JobSet controller first.")
        found = self._get()
        if found is not None and found["metadata"].get("annotations", {}).get(OUT) != self.spec.out:
            raise UserError(
                f"A JobSet named {self.spec.name} exists already in namespace "
                f"{self.backend.namespace} and is not of this job: choose another job.name."
            )

    def apply(self, action: Action) -> None:
        assert isinstance(action, CreateJobSet)
        if self._custom("create_namespaced_custom_object", action.manifest) is None:
            raise UserError(
                f"The cluster has no namespace {self.backend.namespace!r}, or no JobSets: make it "
                f"with kubectl create namespace {self.backend.namespace}."
            )

    def resource(self) -> Resource:
        found = self._get()
        return Resource("absent") if found is None else resource_of(found)

    def remove(self) -> None:
        if self._get() is None:
            return
        self._custom(
            "delete_namespaced_custom_object", self.spec.name, propagation_policy="Foreground"
        )
        until = time.monotonic() + self.spec.grace_seconds + 120
        while self._get() is not None:
            if time.monotonic() > until:
                raise UserError(
                    f"The JobSet {self.spec.name} is still being deleted: its pods may cost money, "
                    f"look with kubectl get pods -l {LABEL}={self.spec.name}."
                )
            time.sleep(self.poll)

    def billable(self) -> list[str]:
        from kubernetes.client import CoreV1Api

        lines = [f"JobSet {self.spec.name}"] if self._get() is not None else []
        pods = _call(
            CoreV1Api(self.client).list_namespaced_pod,
            self.backend.namespace,
            label_selector=f"{LABEL}={self.spec.name}",
        )
        for found in pods.items if pods else []:
            if found.status.phase in ("Pending", "Running", "Unknown"):
                lines.append(f"pod {found.metadata.name} ({found.status.phase})")
        return lines


def resource_of(found: dict[str, Any]) -> Resource:
    """What a JobSet, as the API returns it, says of its hosts."""
    name, status = f"JobSet {found['metadata']['name']}", found.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    if "Completed" in conditions:
        return Resource("ended", f"{name} has completed")
    if "Failed" in conditions:
        return Resource("failed", f"{name} has failed ({conditions['Failed'].get('message', '')})")
    ready = sum(job.get("ready", 0) for job in status.get("replicatedJobsStatus", []))
    slices = sum(job.get("replicas", 1) for job in found["spec"]["replicatedJobs"])
    if ready < slices:
        why = "suspended by its queue, " if "Suspended" in conditions else ""
        return Resource("waiting", f"{why}{ready} of {counted(slices, 'slice')} ready")
    return Resource("running", name)


def listing(namespace: str, context: str | None, client: Any = None) -> list[dict[str, str]]:
    """Our jobs in a namespace: name, state and output folder."""
    client = client or make_client(context)
    from kubernetes.client import CustomObjectsApi

    api = CustomObjectsApi(client)
    found = _call(
        api.list_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL, label_selector=LABEL
    )
    rows = []
    for item in found["items"] if found else []:
        out = item["metadata"].get("annotations", {}).get(OUT, "")
        rows.append({"job": item["metadata"]["name"], "state": resource_of(item).state, "out": out})
    return rows


def make_client(context: str | None) -> Any:
    """The API client from the kubeconfig.

    Raises:
      UserError: the package, the kubeconfig or the context is missing.
    """
    require_packages("The gke back end", "kubernetes")
    import kubernetes

    try:
        return kubernetes.config.new_client_from_config(context=context)
    except kubernetes.config.ConfigException as error:
        raise UserError(
            f"The gke back end found no cluster ({error}): "
            "run gcloud container clusters get-credentials."
        ) from None


def _call(method: Any, *arguments: Any, **named: Any) -> Any:
    """Calls the API; None where it says 404. Raises `UserError` for every other refusal."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return method(*arguments, _request_timeout=60, **named)
    except ApiException as error:
        if error.status == 404:
            return None
        raise UserError(f"The cluster refused: {error.status} {_message(error)}.") from None
    except HTTPError as error:
        raise UserError(f"The cluster cannot be reached ({type(error).__name__}).") from None


def _message(error: Any) -> str:
    import json

    try:
        return json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
