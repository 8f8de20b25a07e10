"""The network as the mesh axes use it: bandwidths, and what a step exchanges on each axis.

It follows "How to scale your model", chapters 3 and 5 (2025). Collectives run on rings. An
all-gather or reduce-scatter of V bytes takes V/W on an axis of bandwidth W; an all-reduce takes
twice that. Several torus axes add their bandwidths. A closed torus axis moves data in both
directions (2 × the rate of a link); an open one has about half of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import NamedTuple

from llm_jax.config import ModelConfig
from llm_jax.facts.counts import parameters, total_parameters
from llm_jax.facts.hardware import Chip, Slice
from llm_jax.facts.sizes import DTYPE_BYTES
from llm_jax.plan.memory import Layout

HOP_SECONDS = 1e-6
"""Latency of one hop on a TPU's interconnect ("How to scale your model", chapter 3)."""
AXES = ("fsdp", "tensor", "data", "expert", "context", "pipeline")


@dataclass(frozen=True)
class Network:
    """Bandwidth of each mesh axis in bytes/s per device, and the hops around its ring."""

    fsdp: float
    tensor: float
    data: float
    expert: float
    context: float
    pipeline: float
    fsdp_hops: int
    tensor_hops: int


def network(chip: Chip, piece: Slice, slices: int, layout: Layout) -> Network:
    """The bandwidth that the network gives each mesh axis.

    Tensor parallelism uses whole torus axes if the product of their sizes is its size. Otherwise it
    uses part of one axis, which is then not a ring. The other torus axes are for fsdp, and for
    expert, context, and data inside the slice. The stages of a pipeline are neighbours on one axis.
    Between slices there is only the data-centre network. GPUs: see `_switched`.
    """
    if not chip.torus:
        return _switched(chip, piece, slices, layout)
    share = 1 / chip.devices_per_chip
    rate = [2 * share * chip.ici_bandwidth * (1.0 if ring else 0.5) for ring in piece.wraps]
    used = _axes_for(layout.tensor, piece.shape)
    if used is None:
        tensor, tensor_hops, left = rate[0] / 2, layout.tensor, list(range(len(rate)))
    else:
        tensor = sum(rate[i] for i in used) or rate[0]
        tensor_hops = max((piece.shape[i] for i in used), default=1)
        left = [i for i in range(len(rate)) if i not in used and piece.shape[i] > 1]
    fsdp = sum(rate[i] for i in left) or rate[0]
    hops = sum(piece.shape[i] for i in left)
    data = share * chip.dcn_bandwidth if slices > 1 else fsdp
    return Network(fsdp, tensor, data, fsdp, fsdp, rate[0] / 2, hops, tensor_hops)


def _switched(chip: Chip, piece: Slice, slices: int, layout: Layout) -> Network:
    """The network of GPUs. The switch of a node connects every axis inside the node.

    Devices of the axes tensor, context, expert, fsdp follow each other in this order. If fsdp spans
    nodes, it enters each node once, over the network cards of all its devices there.
    """
    within = min(piece.chips, layout.devices)
    inner = layout.tensor * layout.context
    beside = max(1, within // inner)
    across = chip.dcn_bandwidth * beside
    inside = chip.ici_bandwidth
    fsdp = inside
    if layout.fsdp * inner > within:
        fsdp = 1 / (1 / inside + 1 / across) if beside > 1 else across
    return Network(
        fsdp=fsdp,
        tensor=inside,
        data=inside if slices == 1 else chip.dcn_bandwidth,
        expert=inside if inner * layout.expert <= within else chip.dcn_bandwidth,
        context=inside if inner <= within else chip.dcn_bandwidth,
        pipeline=inside if slices == 1 else chip.dcn_bandwidth,
        fsdp_hops=1,
        tensor_hops=1,
    )


def _axes_for(size: int, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Indices of whole torus axes whose sizes have the product `size`; None if there are none."""
    for count in range(len(shape) + 1):
        for axes in combinations(range(len(shape)), count):
            if prod(shape[i] for i in axes) == size:
                return axes
    return None


class Traffic(NamedTuple):
    """What one device exchanges on a mesh axis in one step."""

    bytes: float = 0.0
    seconds: float = 0.0


def traffic(
    model: ModelConfig, layout: Layout, tokens: float, links: Network
) -> dict[str, Traffic]:
    """What a device exchanges in one step, by mesh axis.

    * fsdp: for each micro-batch (and each piece of it that goes through a pipeline), weights are
      gathered for the forward and the backward pass, and gradients are reduce-scattered: 3·P
      values of the weights that the device's stage, tensor part and experts hold.
    * tensor: for each layer, two all-reduces of the activations forward, two backward, and two more
      if the block is recomputed.
    * data: one all-reduce of the float32 gradients.
    * expert: in each layer with experts, the tokens of all devices of the axis are gathered, and
      their results reduce-scattered; both again backward, and once more if recomputed.
    * context: in each layer, the keys and values of the other devices; backward also their
      gradients.
    * pipeline: a piece's activations move to the next stage, and their gradients back.

    Args:
      tokens: tokens per device and step.
    """
    size = DTYPE_BYTES[layout.dtype]
    stages, passes = layout.pipeline, 2 if layout.remat == "none" else 3
    params, experts = total_parameters(model), parameters(model)["experts"]
    held = (params - experts + experts / layout.expert) / (layout.tensor * stages)
    layers = model.num_layers / stages
    found = dict.fromkeys(AXES, Traffic())
    if layout.fsdp > 1:
        gathers = layout.accumulate * layout.pieces
        latency = 3 * layers * gathers * links.fsdp_hops / 2 * HOP_SECONDS
        volume = 3 * held * size * gathers * (layout.fsdp > layout.expert)
        found["fsdp"] = Traffic(volume, max(volume / links.fsdp, latency))
    stream = tokens * model.d_model * size
    if layout.tensor > 1:
        reduces, volume = 2 * passes * layers, 2 * stream
        latency = links.tensor_hops * HOP_SECONDS * layout.accumulate
        found["tensor"] = Traffic(reduces * volume, reduces * max(volume / links.tensor, latency))
    if layout.data > 1:
        volume = 2 * params * 4 / (layout.fsdp * layout.tensor * stages)
        found["data"] = Traffic(volume, volume / links.data)
    if layout.expert > 1:
        times = sum(model.moe_layers) / stages * (2 * passes - (passes == 3))
        volume = times * stream * (layout.expert - 1)
        found["expert"] = Traffic(volume, volume / links.expert)
    if layout.context > 1:
        each = model.num_kv_heads * (model.head_dim + model.value_dim)
        keys = tokens * each * size / layout.tensor
        volume = (passes + 1) * layers * keys * (layout.context - 1)
        found["context"] = Traffic(volume, volume / links.context)
    if stages > 1:
        volume = 2 * stream * layout.rounds / layout.tensor
        found["pipeline"] = Traffic(volume, volume / links.pipeline)
    return found
