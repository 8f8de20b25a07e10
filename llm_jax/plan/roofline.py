"""Time of one training step from rooflines: compute, memory, and the network of each mesh axis.

It follows "How to scale your model", chapters 3 and 5 (2025). Collectives run on rings. An
all-gather or reduce-scatter of V bytes takes V/W on an axis of bandwidth W; an all-reduce takes
twice that. Several torus axes add their bandwidths. A closed torus axis moves data in both
directions (2 × the rate of a link); an open one has about half of that.

Published runs say how much of the peak matmuls reach, and how much of the communication compute
hides (`facts/calibration.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from math import prod

from llm_jax.config import ModelConfig
from llm_jax.facts.calibration import Calibration, calibration
from llm_jax.facts.counts import TokenFlops, active_ffn_widths, total_parameters
from llm_jax.facts.hardware import Chip, Slice
from llm_jax.facts.sizes import DTYPE_BYTES
from llm_jax.plan.memory import Layout

HOP_SECONDS = 1e-6
"""Latency of one hop on a TPU's interconnect ("How to scale your model", chapter 3)."""


@dataclass(frozen=True)
class Network:
    """Bandwidth of each mesh axis in bytes/s per device, and the hops around its ring."""

    fsdp: float
    tensor: float
    data: float
    fsdp_hops: int
    tensor_hops: int


def network(chip: Chip, piece: Slice, slices: int, layout: Layout) -> Network:
    """The bandwidth that the network gives each mesh axis.

    Tensor parallelism uses whole torus axes if the product of their sizes is its size. Otherwise it
    uses part of one axis, which is then not a ring. The other torus axes are for fsdp (or for data
    inside the slice). Between slices there is only the data-centre network. The switch of a GPU
    node connects every axis inside the node. If fsdp spans nodes, it enters each node once, over
    all of the node's network cards.
    """
    share = 1 / chip.devices_per_chip
    if not chip.torus:
        within = min(piece.chips, layout.devices)
        across = chip.dcn_bandwidth * within
        spans = layout.fsdp * layout.tensor > within
        joint = 1 / (1 / chip.ici_bandwidth + 1 / across) if spans else chip.ici_bandwidth
        inside = layout.data == 1 or slices == 1
        data = chip.ici_bandwidth if inside else chip.dcn_bandwidth
        return Network(joint, chip.ici_bandwidth, data, 1, 1)
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
    return Network(fsdp, tensor, data, hops, tensor_hops)


def _axes_for(size: int, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Indices of whole torus axes whose sizes have the product `size`; None if there are none."""
    for count in range(len(shape) + 1):
        for axes in combinations(range(len(shape)), count):
            if prod(shape[i] for i in axes) == size:
                return axes
    return None


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, by resource; communication by mesh axis."""

    math: float
    """Matmuls, at the share of the peak that they reach. On a CPU also the scores of attention, and
    the fixed cost of a step."""
    hbm: float
    host: float
    """Block inputs to the host's memory and back."""
    fsdp: float
    tensor: float
    data: float
    sent: float
    """Bytes that one device exchanges over the network."""
    exposed: float
    """Seconds of the communication that compute does not hide."""
    between: float
    """Factor for the slices that wait for each other; 1 on one slice."""
    interval: float
    """Half of the 90% prediction interval of ln(seconds)."""
    runs: int
    """Published runs of this chip that the factors are fitted to."""
    own: float = 1.0
    """What your own runs measured, relative to the planner (`plan/own_speed.py`)."""
    own_runs: int = 0
    """How many of them."""

    @property
    def comms(self) -> float:
        """Sum over the axes: they use different links, but wait for each other within a layer."""
        return self.fsdp + self.tensor + self.data

    @property
    def expected(self) -> float:
        """Seconds of the step: the slowest resource, or compute and what it does not hide."""
        busy = max(self.math, self.hbm, self.host) + self.exposed
        return max(busy, self.comms) * self.between * self.own

    @property
    def low(self) -> float:
        """Lower end of the 90% prediction interval."""
        return self.expected * math.exp(-self.interval)

    @property
    def high(self) -> float:
        """Upper end of the 90% prediction interval."""
        return self.expected * math.exp(self.interval)

    @property
    def bound(self) -> str:
        """Name of the slowest resource."""
        comms = {"fsdp": self.fsdp, "tensor": self.tensor, "data": self.data}
        slowest = max(comms, key=lambda axis: comms[axis])
        if self.comms > max(self.math, self.hbm, self.host):
            return f"{slowest} communication"
        if self.host > max(self.math, self.hbm):
            return "transfers to the host"
        return "compute" if self.math >= self.hbm else "memory bandwidth"


def step_time(
    model: ModelConfig,
    flops: TokenFlops,
    chip: Chip,
    piece: Slice,
    slices: int,
    layout: Layout,
    batch_tokens: int,
    update_flops: float = 0.0,
    fitted: Calibration | None = None,
) -> StepTime:
    """Seconds of one step of `batch_tokens` tokens, by resource.

    * math: the executed FLOPs of a device's tokens, plus `update_flops` (the optimizer's matmuls,
      which every device computes), over what the chip reaches: the peak times its share, less where
      the device's part of a matmul is narrow, and less for attention. On a CPU: over the attainable
      share, with the attention scores at their own rate, plus the fixed cost of a step.
    * hbm: weights read in each pass, optimizer state read and written, activations written and
      read.
    * host: with `offload`, each block's input is written to the host's memory and read again.
    * fsdp: for each micro-batch, weights are gathered for the forward and the backward pass, and
      gradients are reduce-scattered: 3·P/Y values, where tensor parallelism has size Y.
    * tensor: for each layer, two all-reduces of the activations forward, two backward, and two more
      if the block is recomputed.
    * data: one all-reduce of the gradients.

    Args:
      fitted: factors from measured runs; by default those of `facts/calibration.json`.
    """
    size = DTYPE_BYTES[layout.dtype]
    params = total_parameters(model)
    links = network(chip, piece, slices, layout)
    tokens = batch_tokens / layout.batch_shards
    passes = 2 if layout.remat == "none" else 3
    executed = batch_tokens / layout.devices * flops.executed(layout.remat) + update_flops
    fitted = fitted or calibration()
    factors = fitted.of(chip)

    fsdp = tensor = data = sent = 0.0
    if layout.fsdp > 1:
        volume = 3 * params * size / layout.tensor * layout.accumulate
        latency = 3 * model.num_layers * layout.accumulate * links.fsdp_hops / 2 * HOP_SECONDS
        fsdp = max(volume / links.fsdp, latency)
        sent += volume
    if layout.tensor > 1:
        reduces = 2 * passes * model.num_layers
        volume = 2 * tokens * model.d_model * size
        latency = links.tensor_hops * HOP_SECONDS * layout.accumulate
        tensor = reduces * max(volume / links.tensor, latency)
        sent += reduces * volume
    if layout.data > 1:
        volume = 2 * params * 4 / (layout.fsdp * layout.tensor)
        data = volume / links.data
        sent += volume
    state = 7 * 4 * params / (layout.fsdp * layout.tensor)
    weights = passes * params * size / layout.tensor * layout.accumulate
    activity = (
        2
        * tokens
        * size
        * (6 * model.num_layers * model.d_model + 3 * sum(active_ffn_widths(model)))
    )
    peak = chip.peak(layout.dtype) / chip.devices_per_chip
    if chip.kind == "cpu":
        work = executed / peak
        if chip.score_rate is not None:
            work += batch_tokens / layout.devices * flops.scores / chip.score_rate
        work = work / factors.share + (chip.step_overhead or 0.0)
    else:
        attention = batch_tokens / layout.devices * flops.executed_attention(layout.remat)
        reached = _width_share(model, layout, fitted.half_width) * factors.share
        work = (executed - attention) / (peak * reached)
        work += attention / (peak * fitted.attention * factors.share)
    offloaded = 0.0
    if layout.remat == "offload":
        offloaded = 2.0 * model.num_layers * tokens * model.d_model * size / layout.tensor
    doublings = math.log2(slices) if chip.torus else 0.0
    return StepTime(
        math=work,
        hbm=(state + weights + activity / layout.tensor)
        / (chip.hbm_bandwidth / chip.devices_per_chip),
        host=offloaded / (chip.pcie_bandwidth / chip.devices_per_chip),
        fsdp=fsdp,
        tensor=tensor,
        data=data,
        sent=sent,
        exposed=fitted.fsdp * fsdp + fitted.tensor * tensor + fitted.data * data,
        between=(1 + fitted.per_doubling) ** doublings,
        interval=factors.interval,
        runs=factors.runs,
    )


def _width_share(model: ModelConfig, layout: Layout, half_width: float) -> float:
    """Share of their best rate that a device's matmuls reach: the narrower its part, the less."""
    ffn = model.d_ff if model.moe is None else model.moe.d_ff
    width = min(
        model.d_model, ffn / layout.tensor, model.num_heads * model.head_dim / layout.tensor
    )
    return width / (width + half_width)
