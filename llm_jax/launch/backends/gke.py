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
from llm_jax.config.wording import counted
from llm_jax.launch.actions import Action
from llm_jax.launch.backends import Resource
from llm_jax.launch.backends.gke_api import call, make_client
from llm_jax.launch.backends.gke_jobset import GROUP, LABEL, OUT, PLURAL, VERSION, manifest
from llm_jax.launch.spec import Gke, JobSpec


@dataclass(frozen=True)
class CreateJobSet(Action):
    namespace: str
    manifest: dict[str, Any]


def render(spec: JobSpec, incarnation: int) -> list[Action]:
    backend = spec.backend
    assert isinstance(backend, Gke)
    return [CreateJobSet(backend.namespace, manifest(spec, backend, incarnation))]


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
        return call(getattr(api, method), *place, *arguments, **named)

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
        pods = call(
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
    found = call(
        api.list_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL, label_selector=LABEL
    )
    rows = []
    for item in found["items"] if found else []:
        out = item["metadata"].get("annotations", {}).get(OUT, "")
        rows.append({"job": item["metadata"]["name"], "state": resource_of(item).state, "out": out})
    return rows
