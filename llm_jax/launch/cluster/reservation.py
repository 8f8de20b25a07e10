"""The job's reservation: that it is there, is of the job's machines, and has enough of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_jax.config.wording import counted
from llm_jax.launch.accelerators import gce_machine
from llm_jax.launch.cluster.capacity import slices_by_pool
from llm_jax.launch.cluster.finding import Finding, World


def reservation(world: World) -> Iterator[Finding]:
    name = world.spec.reservation
    if name is None or world.google is None:
        return
    found = world.google.reservation(name)
    if found is None:
        yield Finding(
            "reservation", "error",
            f"The project {world.google.project} has no reservation {name!r} in "
            f"{world.google.region}: look with gcloud compute reservations list.",
        )  # fmt: skip
        return
    if found.get("status") not in (None, "READY"):
        yield Finding(
            "reservation", "error",
            f"The reservation {name} is {found['status']}: it has machines once it is READY.",
        )  # fmt: skip
        return
    yield from _size(world, name, found)
    if end := found.get("deleteAtTime"):
        yield Finding(
            "reservation", "warning",
            f"The reservation {name} ends at {end}, and its machines with it: they are bound to "
            "the reservation, and what is not saved by then is lost.",
        )  # fmt: skip


def _size(world: World, name: str, found: dict[str, Any]) -> Iterator[Finding]:
    of, spec = world.spec.slice_type, world.spec
    machine, per_machine = gce_machine(of), of.chips_per_host * of.hosts_per_machine
    wanted = spec.slices * of.machines
    if "specificReservation" in found:
        held = found["specificReservation"]
        kind = held.get("instanceProperties", {}).get("machineType", "")
        if machine and kind != machine:
            yield Finding(
                "reservation", "error",
                f"The reservation {name} is of {kind} machines, and {spec.accelerator} needs "
                f"{machine}: name another reservation or accelerator.",
            )  # fmt: skip
            return
        total, used = int(held.get("count", 0)), int(held.get("inUseCount", 0))
    else:
        total, used = (
            _chips(found.get("aggregateReservation", {}), key, machine) // per_machine
            for key in ("reservedResources", "inUseResources")
        )
    running = (
        sum(slices_by_pool(world).values()) * of.machines
    )  # in use by this cluster's own nodes
    free = min(total, total - used + running)
    if wanted > free:
        yield Finding(
            "reservation", "error",
            f"The job needs {counted(wanted, f'{machine} machine')}, and the reservation {name} "
            f"has {total:,}, of which {free:,} are free or in this cluster: lower --slices.",
        )  # fmt: skip
    else:
        yield Finding(
            "reservation", "ok",
            f"The reservation {name} has {counted(total, 'machine')}, and the job needs {wanted}.",
        )  # fmt: skip


def _chips(aggregate: dict[str, Any], key: str, machine: str) -> int:
    """Chips of the machine's family in an aggregate reservation: `ct5p` of ct5p-hightpu-4t."""
    family = machine.partition("-")[0]
    parts = [held["accelerator"] for held in aggregate.get(key, []) if "accelerator" in held]
    return sum(
        int(part.get("acceleratorCount", 0))
        for part in parts
        if part.get("acceleratorType", "").rpartition("/")[2].startswith(family)
    )
