"""The job's Kueue queue: that it is there, lets jobs in, and has quota for this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_jax.launch.cluster.finding import Finding, World

KUEUE = "kueue.x-k8s.io"


def queue(world: World) -> Iterator[Finding]:
    name, space = world.backend.queue, world.backend.namespace
    if name is None:
        return
    version = world.kube.groups().get(KUEUE)
    if version is None:
        yield Finding(
            "queue", "error",
            f"job.backend.queue is {name!r}, and the cluster has no Kueue: install it, or launch "
            "without --queue.",
        )  # fmt: skip
        return
    local = world.kube.get(KUEUE, version, "localqueues", name, space)
    if local is None:
        known = world.kube.names(KUEUE, version, "localqueues", space) or []
        yield Finding(
            "queue", "error",
            f"The namespace {space} has no queue {name!r}: it has {', '.join(known) or 'none'}.",
        )  # fmt: skip
        return
    if stopped := _inactive(local):
        yield Finding("queue", "error", f"The queue {name} lets no job in: {stopped}.")
        return
    behind = local["spec"]["clusterQueue"]
    cluster_queue = world.kube.get(KUEUE, version, "clusterqueues", behind)
    if cluster_queue is None:
        yield Finding(
            "queue", "error", f"The queue {name} belongs to a ClusterQueue {behind}, which is "
            "missing: create it, or name another queue."
        )  # fmt: skip
        return
    yield from _quota(world, cluster_queue["spec"], behind)


def _inactive(local: dict[str, Any]) -> str:
    """Why a LocalQueue is not active; empty if it is."""
    for condition in local.get("status", {}).get("conditions", []):
        if condition["type"] == "Active" and condition["status"] != "True":
            return condition.get("message", "it is not active").rstrip(".")
    policy = local["spec"].get("stopPolicy", "None")
    return "" if policy == "None" else f"its stopPolicy is {policy}"


def _quota(world: World, spec: dict[str, Any], name: str) -> Iterator[Finding]:
    resource, wanted = world.resource, world.chips
    covering = [g for g in spec.get("resourceGroups", []) if resource in g["coveredResources"]]
    if not covering:
        yield Finding(
            "queue", "error",
            f"The ClusterQueue {name} has no quota for {resource}: add it to a resource group.",
        )  # fmt: skip
        return
    most = max(_most(flavor, resource) for g in covering for flavor in g["flavors"])
    if wanted > most and not (spec.get("cohort") or spec.get("cohortName")):
        yield Finding(
            "queue", "error",
            f"The job needs {wanted:,} {resource}, and the ClusterQueue {name} has a quota of "
            f"{most:,.0f}: raise its nominalQuota, or lower --slices.",
        )  # fmt: skip
    elif world.spec.capacity == "flex-start" and not _checks(spec):
        yield Finding(
            "queue", "error",
            f"The ClusterQueue {name} has no admission check, and flex-start through a queue needs "
            "one of kind provisioning-request: add it, or launch without --queue.",
        )  # fmt: skip
    else:
        yield Finding("queue", "ok", f"The ClusterQueue {name} has {most:,.0f} {resource}.")


def _most(flavor: dict[str, Any], resource: str) -> float:
    """What one flavor gives: a pod set is never spread over two."""
    from kubernetes.utils.quantity import parse_quantity

    for held in flavor["resources"]:
        if held["name"] == resource:
            return float(parse_quantity(held["nominalQuota"]))
    return 0.0


def _checks(spec: dict[str, Any]) -> list[Any]:
    strategy = spec.get("admissionChecksStrategy", {})
    return spec.get("admissionChecks", []) or strategy.get("admissionChecks", [])
