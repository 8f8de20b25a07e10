"""Machines for the job: nodes that are there, pools that can grow, a reservation, the quota."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from llm_jax.config.wording import counted
from llm_jax.launch.accelerators import gce_machine
from llm_jax.launch.backends.gke_pod import node_selector
from llm_jax.launch.cluster.finding import Finding, World

TPU_FAMILY = {"v4": "CT4P", "v5e": "CT5LP", "v5p": "CT5P", "v6e": "CT6E", "tpu7x": "TPU7X"}
GPU_FAMILY = {"a100": "NVIDIA_A100_80GB", "h100": "NVIDIA_H100", "h200": "NVIDIA_H200",
              "b200": "NVIDIA_B200", "a3-megagpu-8g": "NVIDIA_H100_MEGA"}  # fmt: skip


TAINTED = {"spot": {"gke-spot"}, "flex-start": {"gke-flex-start", "gke-queued"}}
"""Capacity → labels of its nodes, which have taints of the same names."""


def capacity(world: World) -> Iterator[Finding]:
    """Whether the slices have nodes, or could get them."""
    held = slices_by_pool(world)
    ready = sum(held.values())
    slices = world.spec.slices
    if ready >= slices:
        yield Finding("nodes", "ok", f"Nodes of {counted(ready, 'slice')} are ready.")
        return
    shown = f"The job needs nodes of {counted(slices, f'{world.spec.accelerator} slice')}"
    have = f"the cluster has {'those of ' + str(ready) if ready else 'none'}"
    if world.google is None:
        yield Finding(
            "nodes", "warning",
            f"{shown}, and {have} that are ready: it waits until there are more.",
        )  # fmt: skip
        return
    pools = fitting_pools(world)
    growing = sum(max(0, room(pool, world) - held[pool["name"]]) for pool in pools)
    if ready + growing >= slices or autoprovisions(world):
        yield Finding(
            "nodes", "warning",
            f"{shown}, and {have} that are ready: the cluster makes the others when the job asks.",
        )  # fmt: skip
        yield from quota(world, slices - ready)
        return
    labels = ", ".join(f"{k.rpartition('/')[2]}={v}" for k, v in selector(world).items())
    yield Finding(
        "nodes", "error",
        f"{shown}, and {have} ({labels or 'of any kind'}), with room for {growing} in "
        f"{counted(len(pools), 'node pool')}: make more with gcloud container node-pools create "
        f"--machine-type {gce_machine(world.spec.slice_type) or 'TYPE'}, or lower --slices.",
    )  # fmt: skip


def selector(world: World) -> dict[str, str]:
    """Labels that nodes of the job carry."""
    return node_selector(world.spec, world.backend)


def slices_by_pool(world: World) -> Counter[str]:
    """Node pool → slices for which its nodes are ready. A TPU slice takes a pool of its own
    (`exclusive-topology`); a machine is any node."""
    spec, of, per_pool = world.spec, world.spec.slice_type, Counter[str]()
    others = [labels for kind, labels in TAINTED.items() if kind != spec.capacity]
    closed = {f"cloud.google.com/{name}" for labels in others for name in labels}
    for node in world.kube.nodes(selector(world)):
        labels, conditions = node["metadata"]["labels"], node["status"].get("conditions", [])
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if ready and not [name for name in closed if labels.get(name) == "true"]:
            per_pool[labels.get("cloud.google.com/gke-nodepool", "")] += 1
    if of.kind == "tpu":
        return Counter({pool: 1 for pool, count in per_pool.items() if count >= of.machines})
    return per_pool


def fitting_pools(world: World) -> list[dict[str, Any]]:
    """Node pools whose machines, shape and capacity are those of the job."""
    assert world.google is not None
    return [p for p in world.google.description.get("nodePools", []) if fits(p, world)]


def fits(pool: dict[str, Any], world: World) -> bool:
    """Whether the nodes of a pool, as the GKE API describes it, can run the job."""
    spec, of, config = world.spec, world.spec.slice_type, pool.get("config", {})
    machine = gce_machine(of)
    if machine and config.get("machineType") != machine:
        return False
    if of.kind == "gpu" and not machine:  # several machine types have such GPUs
        held_types = [one.get("acceleratorType") for one in config.get("accelerators", [])]
        if selector(world)["cloud.google.com/gke-accelerator"] not in held_types:
            return False
    held = pool.get("placementPolicy", {})
    if of.kind == "tpu" and of.machines > 1 and of.topology != held.get("tpuTopology", of.topology):
        return False
    if bool(config.get("spot")) != (spec.capacity == "spot"):
        return False
    if bool(config.get("flexStart")) != (spec.capacity == "flex-start"):
        return False
    reserved = config.get("reservationAffinity", {}).get("values", [])
    return spec.reservation is None or spec.reservation in [v.rpartition("/")[2] for v in reserved]


def room(pool: dict[str, Any], world: World) -> int:
    """The most slices that a pool makes nodes for when jobs ask, those that are ready included."""
    of, scaling = world.spec.slice_type, pool.get("autoscaling", {})
    if not scaling.get("enabled"):
        return 0
    if of.kind == "tpu":
        return 1
    zones = len(pool.get("locations", [])) or 1
    return scaling.get("totalMaxNodeCount") or scaling.get("maxNodeCount", 0) * zones


def autoprovisions(world: World) -> bool:
    """Whether the cluster makes node pools by itself."""
    assert world.google is not None
    scaling = world.google.description.get("autoscaling", {})
    return bool(scaling.get("enableNodeAutoprovisioning"))


def quota(world: World, slices: int) -> Iterator[Finding]:
    """Whether Google's quota allows the machines of so many slices."""
    spec, of, google = world.spec, world.spec.slice_type, world.google
    if of.kind == "cpu" or spec.capacity == "reserved" or google is None:
        return
    kind = of.kind.upper()
    preemptible = "PREEMPTIBLE-" if spec.capacity in ("spot", "flex-start") else ""
    name = f"{preemptible}{kind}S-PER-{kind}-FAMILY-per-project-region"
    family = TPU_FAMILY.get(of.chip) or GPU_FAMILY.get(of.machine) or GPU_FAMILY[of.chip]
    limit = google.quota(name, f"{of.kind}_family", family)
    wanted = slices * of.hosts * of.chips_per_host
    if limit is None:
        yield Finding("quota", "warning", f"Google knows no quota {name}: none was compared.")
    elif 0 <= limit < wanted:
        yield Finding(
            "quota", "error",
            f"The job needs {wanted:,} more {family} chips in {google.region}, and the quota "
            f"{name} is {limit:,}: ask for more in the console, or lower --slices.",
        )  # fmt: skip
    else:
        shown = f"{limit:,}" if limit >= 0 else "without limit"
        yield Finding("quota", "ok", f"The quota {name} of {family} is {shown}.")
