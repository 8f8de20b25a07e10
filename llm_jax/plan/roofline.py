"""Time of one training step from rooflines: compute, memory, and the network of each mesh axis.

It follows "How to scale your model", chapters 3 and 5 (2025). Published runs say how much of the
peak matmuls reach, and how much of the communication compute hides (`facts/calibration.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_jax.config import ModelConfig
from llm_jax.facts.calibration import Calibration, calibration
from llm_jax.facts.counts import TokenFlops, active_ffn_widths, total_parameters
from llm_jax.facts.hardware import Chip, Slice
from llm_jax.facts.sizes import DTYPE_BYTES
from llm_jax.plan.memory import Layout
from llm_jax.plan.network import network, traffic


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, by resource; communication by mesh axis."""

    math: float
    """Matmuls, at the share of the peak that they reach. On a CPU also the scores of attention, and
    the fixed cost of a step."""
    hbm: float
    host: float
    """Block inputs to the host's memory and back."""
    axes: dict[str, float]
    """Communication, by mesh axis."""
    sent: float
    """Bytes that one device exchanges over the network."""
    exposed: float
    """Seconds of the communication that compute does not hide."""
    bubble: float
    """Seconds in which the stages of a pipeline are idle."""
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
        return sum(self.axes.values())

    @property
    def expected(self) -> float:
        """Seconds of the step: the slowest resource, or compute and what it does not hide."""
        busy = max(self.math, self.hbm, self.host) + self.exposed
        return (max(busy, self.comms) + self.bubble) * self.between * self.own

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
        slowest = max(self.axes, key=lambda axis: self.axes[axis])
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

    * math: see `_math`.
    * hbm: weights read in each pass, optimizer state read and written, activations written and
      read.
    * host: with `offload`, each block's input is written to the host's memory and read again.
    * axes: see `network.traffic`.
    * bubble: see `Layout.bubble`; each micro-batch has one.

    Args:
      update_flops: FLOPs of the optimizer's matmuls, which every device computes.
      fitted: factors from measured runs; by default those of `facts/calibration.json`.
    """
    fitted = fitted or calibration()
    factors = fitted.of(chip)
    size = DTYPE_BYTES[layout.dtype]
    tokens = batch_tokens / layout.token_shards
    held = total_parameters(model) / (layout.tensor * layout.pipeline)
    state = 7 * 4 * held / layout.fsdp
    passes = 2 if layout.remat == "none" else 3
    weights = passes * held * size * layout.accumulate
    widths = 6 * model.num_layers * model.d_model + 3 * sum(active_ffn_widths(model))
    activity = 2 * tokens * size * widths / (layout.tensor * layout.pipeline)
    offloaded = 0.0
    if layout.remat == "offload":
        offloaded = 2.0 * model.num_layers * tokens * model.d_model * size / layout.tensor
    sent = traffic(model, layout, tokens, network(chip, piece, slices, layout))
    axes = {axis: one.seconds for axis, one in sent.items()}
    hidden = fitted.exposed()
    work = _math(model, flops, chip, layout, batch_tokens, update_flops, fitted)
    doublings = math.log2(slices) if chip.torus else 0.0
    return StepTime(
        math=work,
        hbm=(state + weights + activity) / (chip.hbm_bandwidth / chip.devices_per_chip),
        host=offloaded / (chip.pcie_bandwidth / chip.devices_per_chip),
        axes=axes,
        sent=sum(one.bytes for one in sent.values()),
        exposed=sum(hidden[axis] * seconds for axis, seconds in axes.items()),
        bubble=layout.bubble * work,
        between=(1 + fitted.per_doubling) ** doublings,
        interval=max(
            factors.interval,
            fitted.sparse_interval if model.moe else 0.0,
            fitted.eight_bit_interval if layout.eight_bit else 0.0,
        ),
        runs=factors.runs,
    )


def _math(
    model: ModelConfig,
    flops: TokenFlops,
    chip: Chip,
    layout: Layout,
    batch_tokens: int,
    update_flops: float,
    fitted: Calibration,
) -> float:
    """Seconds of a device's matmuls: executed FLOPs over what the chip reaches.

    That is the peak times the chip's share, less where the device's part of a matmul is narrow,
    less for attention, and less for routed experts, the more so the fewer rows each has. On a CPU:
    one share of the measured peak, with the attention scores at their own rate, plus the fixed cost
    of a step.
    """
    tokens = batch_tokens / layout.devices
    peak = chip.peak(layout.dtype) / chip.devices_per_chip
    reached = peak * fitted.of(chip).share
    executed = tokens * flops.executed(layout.remat) + update_flops
    if chip.kind == "cpu":
        scores = tokens * flops.scores / chip.score_rate if chip.score_rate else 0.0
        share = fitted.of(chip).share
        return (executed / peak + scores) / share + (chip.step_overhead or 0.0)
    attention = tokens * flops.executed_attention(layout.remat)
    experts = tokens * flops.executed_experts(layout.remat)
    dense = executed - attention - experts
    width = min(model.d_model, model.num_heads * model.head_dim / layout.tensor)
    if not all(model.moe_layers):
        width = min(width, model.d_ff / layout.tensor)
    faster = (chip.fp8_flops or chip.int8_flops or chip.bf16_flops) / chip.bf16_flops
    slower = 1 - layout.eight_bit + layout.eight_bit / (faster * fitted.eight_bit)
    seconds = dense * slower / (reached * _narrow(width, fitted.half_width))
    seconds += attention / (reached * fitted.attention)
    if model.moe:
        rows = batch_tokens / layout.token_shards * model.moe.top_k / model.moe.experts
        rows *= layout.expert / (layout.accumulate * layout.pieces)
        width = min(model.d_model, model.moe.d_ff / layout.tensor)
        share = _narrow(width, fitted.half_width) * _narrow(rows, fitted.expert_half_rows)
        seconds += experts / (reached * fitted.experts * share)
    return seconds


def _narrow(width: float, half_width: float) -> float:
    """Share of their best rate that matmuls of this width reach."""
    return width / (width + half_width)
