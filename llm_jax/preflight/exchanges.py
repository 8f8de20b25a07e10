"""The collectives of a compiled step by kind and mesh axis, and a lower bound on their time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jax.sharding import AbstractMesh, Mesh

from llm_jax.parallel.devices import DCN_AXES
from llm_jax.plan.machines import Machine
from llm_jax.plan.memory import Layout
from llm_jax.plan.network import network
from llm_jax.preflight.hlo import Collective

PASSES = {"all-reduce": 2.0, "all-to-all": 0.25}
"""Times that a ring moves the whole array; an all-gather or reduce-scatter moves it once ("How to
scale your model", chapter 3)."""


@dataclass(frozen=True)
class Exchange:
    """All collectives of one kind over the same mesh axes in one step."""

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: int
    """Size of the whole arrays that a device takes part in: after a gather, before a reduction."""


def by_axes(collectives: Iterable[Collective], mesh: Mesh | AbstractMesh) -> list[Exchange]:
    """Sums over `collectives`, the largest first; those within one device are left out."""
    sums: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
    for one in collectives:
        axes = slice_axes(one.kind, mesh) if one.between_slices else axes_of(one.groups, mesh)
        if axes:
            count, size = sums.get((one.kind, axes), (0, 0))
            sums[one.kind, axes] = count + one.times, size + one.times * one.bytes
    found = [Exchange(*key, *value) for key, value in sums.items()]
    return sorted(found, key=lambda exchange: -exchange.bytes)


def axes_of(groups: np.ndarray, mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ."""
    if groups.size == 0:
        return ()
    places = np.stack(np.unravel_index(groups, mesh.axis_sizes), axis=-1)
    varies = (places != places[:, :1]).any(axis=(0, 1))
    return tuple(name for name, found in zip(mesh.axis_names, varies, strict=True) if found)


def slice_axes(kind: str, mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """The mesh axis of an exchange between slices. All-reduces run over `replica`, all others over
    `pipeline`; if only one of the two spans slices, it is that one."""
    spanning = [axis for axis in DCN_AXES if mesh.shape[axis] > 1]
    if len(spanning) > 1:
        spanning = ["replica" if kind == "all-reduce" else "pipeline"]
    return tuple(spanning)


def seconds(exchanges: Iterable[Exchange], machine: Machine, layout: Layout) -> float:
    """Lower bound on the time of `exchanges`: one after another, each at the bandwidth of its
    slowest axis."""
    links = network(machine.chip, machine.piece, machine.slices, layout)
    between = machine.chip.dcn_bandwidth / machine.chip.devices_per_chip
    total = 0.0
    for one in exchanges:
        rates = [links.tensor if axis == "tensor" else links.fsdp for axis in one.axes]
        if machine.slices > 1 and set(one.axes) & set(DCN_AXES):
            rates.append(between)
        total += PASSES.get(one.kind, 1.0) * one.bytes / min(rates)
    return total
