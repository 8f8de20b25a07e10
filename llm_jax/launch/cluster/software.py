"""What is installed in the cluster and named by the job: versions, controllers, queue, accounts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llm_jax.launch.backends.gke_gpu import fabric_machine, interfaces
from llm_jax.launch.backends.gke_jobset import GROUP, PLURAL
from llm_jax.launch.cluster.finding import Finding, World
from llm_jax.launch.cluster.versions import STREAMING_BY_DEFAULT, needed, parsed
from llm_jax.launch.gpu_machines import MACHINES

JOBSET_MINIMUM = (0, 7, 0)
"""Rules of a failure policy have names since then."""
JOBSET_INSTALL = (
    "kubectl apply --server-side -f "
    "https://github.com/kubernetes-sigs/jobset/releases/download/v0.10.1/manifests.yaml"
)
NCCL_INSTALLER = {
    "tcpx": "nccl-tcpx-installer",
    "tcpxo": "nccl-tcpxo-installer",
    "gib": "nccl-rdma-installer",
}


def version(world: World) -> Iterator[Finding]:
    found = world.kube.version()
    held, wanted = parsed(found), needed(world.spec)
    upgrade = "upgrade it with gcloud container clusters upgrade CLUSTER --master, then its pools"
    if held is None:
        yield Finding(
            "version", "warning", f"The cluster runs {found}, which is not GKE: what GKE adds "
            "(TPU labels, Cloud Storage FUSE, Workload Identity) may be missing."
        )  # fmt: skip
    elif held < (parsed(wanted[0]) or ()):
        yield Finding(
            "version", "error",
            f"The cluster runs {found}, and {wanted[1]} needs {wanted[0]} or newer: {upgrade}.",
        )  # fmt: skip
    elif held < (parsed(STREAMING_BY_DEFAULT) or ()):
        yield Finding(
            "version", "warning",
            f"The cluster runs {found}, where Cloud Storage FUSE copies each file to the node's "
            f"disk before it writes it: checkpoints are slow before {STREAMING_BY_DEFAULT}.",
        )  # fmt: skip
    else:
        yield Finding("version", "ok", f"The cluster runs {found}.")


def controllers(world: World) -> Iterator[Finding]:
    groups = world.kube.groups()
    if GROUP not in groups:
        yield Finding(
            "jobset", "error",
            f"The cluster has no JobSets: install their controller with {JOBSET_INSTALL}.",
        )  # fmt: skip
        return
    place = ("apps", "v1", "deployments", "jobset-controller-manager", "jobset-system")
    held = _image_version(world.kube.get(*place))
    if held and held < JOBSET_MINIMUM:
        shown, least = (".".join(map(str, v)) for v in (held, JOBSET_MINIMUM))
        yield Finding(
            "jobset", "error",
            f"The cluster's JobSet controller is {shown}, and the job needs {least}: "
            f"update it with {JOBSET_INSTALL}.",
        )  # fmt: skip
    else:
        shown = ".".join(map(str, held)) if held else "of unknown version"
        yield Finding("jobset", "ok", f"The JobSet controller is {shown}.")


def _image_version(deployment: Any) -> tuple[int, ...] | None:
    """Of a controller's image tag; None if it is not there, or has a tag of another kind."""
    if deployment is None:
        return None
    images = [c["image"] for c in deployment["spec"]["template"]["spec"]["containers"]]
    found = [m for m in (re.search(r":v(\d+)\.(\d+)\.(\d+)", image) for image in images) if m]
    return tuple(map(int, found[0].groups())) if found else None


def driver(world: World) -> Iterator[Finding]:
    name = "gcsfuse.csi.storage.gke.io"
    if world.kube.get("storage.k8s.io", "v1", "csidrivers", name) is None:
        yield Finding(
            "storage driver", "error",
            "The cluster has no Cloud Storage FUSE driver, through which pods see the bucket: add "
            "it with gcloud container clusters update CLUSTER "
            "--update-addons GcsFuseCsiDriver=ENABLED.",
        )  # fmt: skip
    else:
        yield Finding("storage driver", "ok", f"The cluster has the driver {name}.")


def names(world: World) -> Iterator[Finding]:
    """Namespace, service account and priority class, and the right to create JobSets."""
    kube, backend = world.kube, world.backend
    space = backend.namespace
    if kube.core("read_namespace", space) is None:
        yield Finding(
            "namespace", "error",
            f"The cluster has no namespace {space!r}: make it with kubectl create namespace "
            f"{space}.",
        )  # fmt: skip
        return
    yield Finding("namespace", "ok", f"The namespace {space} is there.")
    if not kube.may("create", GROUP, PLURAL, space):
        yield Finding(
            "permission", "error",
            f"You may not create JobSets in the namespace {space}: ask for the role "
            "roles/container.developer, or use --dry-run --manifest.",
        )  # fmt: skip
    account = backend.service_account or "default"
    if kube.core("read_namespaced_service_account", account, space) is None:
        yield Finding(
            "service account", "error",
            f"The namespace {space} has no service account {account!r}: make it with kubectl "
            f"create serviceaccount {account} --namespace {space}.",
        )  # fmt: skip
    else:
        yield Finding("service account", "ok", f"The service account {account} is there.")
    priority = backend.priority
    if priority and not kube.get("scheduling.k8s.io", "v1", "priorityclasses", priority):
        known = kube.names("scheduling.k8s.io", "v1", "priorityclasses") or []
        yield Finding(
            "priority", "error",
            f"The cluster has no PriorityClass {priority!r}: it has {', '.join(known) or 'none'}.",
        )  # fmt: skip


def gpu_network(world: World) -> Iterator[Finding]:
    """What machines with eight GPUs need to reach each other."""
    name = fabric_machine(world.spec)
    if not name:
        return
    machine, kube = MACHINES[name], world.kube
    wanted = {pair["network"] for pair in interfaces(machine, world.backend)} - {"default"}
    held = kube.names("networking.gke.io", "v1", "networks") or []
    if missing := sorted(wanted - set(held)):
        yield Finding(
            "gpu network", "error",
            f"The cluster has no Network {', '.join(missing)} for the GPUs of {name}: it has "
            f"{', '.join(held) or 'none'}, name them with --networks.",
        )  # fmt: skip
    installer = NCCL_INSTALLER[machine.fabric]
    if kube.get("apps", "v1", "daemonsets", installer, "kube-system") is None:
        yield Finding(
            "gpu network", "error",
            f"The cluster has no DaemonSet {installer}, which puts NCCL's plug-in on the nodes of "
            f"{name}: install it as in the GKE guide, Maximize GPU network bandwidth.",
        )  # fmt: skip
    elif not missing:
        yield Finding("gpu network", "ok", f"The cluster has the networks and plug-in of {name}.")
