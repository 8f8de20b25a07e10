"""Finds the slice, the mesh and the memory policy for a model: what fits, and how fast it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import Any

from llm_jax.config import ModelConfig
from llm_jax.facts.counts import Remat, TokenFlops, token_flops
from llm_jax.facts.hardware import Chip
from llm_jax.plan.machines import Machine, machines
from llm_jax.plan.memory import Dtype, Layout, device_bytes, fits
from llm_jax.plan.roofline import StepTime, step_time

ON_DEVICE: tuple[Remat, ...] = ("none", "dots", "full")
REMATS: tuple[Remat, ...] = (*ON_DEVICE, "offload")
STATES: tuple[dict[str, Dtype], ...] = (
    {},
    {"moments": "bfloat16"},
    {"moments": "bfloat16", "gradients": "bfloat16"},
    {"moments": "bfloat16", "gradients": "bfloat16", "params": "bfloat16"},
)
"""Dtypes of the state, in the order in which they are tried: the next only if nothing fits, since
training in float32 is the better known."""
EXPERT_SIZES = (1, 2, 4, 8, 16)
CONTEXT_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""The next only if nothing fits: sequences are split when there are fewer than devices, or when one
does not fit."""
STAGES = (1, 2, 4, 8, 16)
MAX_ROUNDS = 8
TENSOR_SIZES = (1, 2, 4, 8, 16)
COST_SLACK = 0.05
"""A faster slice is chosen if it costs at most this much more than the cheapest one."""
PATIENCE_HOURS = 90 * 24
"""A slice on which the run takes longer than this is chosen only if no slice is faster."""


@dataclass(frozen=True)
class Execution:
    """A machine, with the mesh, batch and memory policy on it, and the step time."""

    machine: Machine
    layout: Layout
    batch_sequences: int
    """Sequences per step, on all devices."""
    time: StepTime
    memory: dict[str, int]
    """Bytes per device, by part."""


def layouts(
    model: ModelConfig,
    machine: Machine,
    dtype: str,
    context: int = 1,
    state: Mapping[str, Any] = STATES[0],
) -> Iterator[Layout]:
    """Meshes that divide the model's widths: tensor within a slice, then fsdp; the rest is data.

    Block inputs are offloaded to the host on TPUs only, where the compiler hides the transfers.
    Pipelines are for GPUs of several nodes: over a torus, fsdp reaches every chip as fast.

    Args:
      state: other fields that all have.
    """
    per_slice = machine.piece.chips * machine.chip.devices_per_chip
    reach = per_slice if machine.chip.torus else machine.devices
    remats = REMATS if machine.chip.kind == "tpu" else ON_DEVICE
    for tensor in TENSOR_SIZES:
        widths = (model.num_heads, model.num_kv_heads, model.d_ff, model.vocab_size)
        inner = tensor * context
        if per_slice % tensor or reach % inner or any(width % tensor for width in widths):
            continue
        inside = max(1, per_slice // inner)
        split = gcd(model.d_model, *(model.latent.ranks if model.latent else ()))
        sizes = {1, gcd(inside, split), gcd(reach // inner, split)}
        for fsdp, expert, stages in product(
            sorted(sizes), _experts(model), _stages(model, machine)
        ):
            if fsdp % expert or machine.devices % (tensor * fsdp * stages * context):
                continue
            for remat in remats:
                yield Layout(
                    data=machine.devices // (tensor * fsdp * stages), fsdp=fsdp, tensor=tensor,
                    accumulate=1, remat=remat, dtype=dtype, expert=expert, context=context,
                    pipeline=stages, rounds=_rounds(model, stages),
                    **state,
                )  # fmt: skip


def _contexts(model: ModelConfig, machine: Machine) -> tuple[int, ...]:
    """Sizes of the mesh axis `context`: 1 where attention or experts need whole sequences."""
    capacity = model.moe is not None and model.moe.capacity_factor is not None
    whole = machine.chip.kind == "cpu" or model.positions == "alibi" or capacity
    return CONTEXT_SIZES[:1] if whole else CONTEXT_SIZES


def _experts(model: ModelConfig) -> list[int]:
    """Sizes of the mesh axis `expert`."""
    if model.moe is None:
        return [1]
    return [size for size in EXPERT_SIZES if model.moe.experts % size == 0]


def _stages(model: ModelConfig, machine: Machine) -> list[int]:
    """Sizes of the mesh axis `pipeline`: all stages have the same layers."""
    if machine.chip.kind != "gpu" or machine.slices == 1:
        return [1]
    return [stages for stages in STAGES if _alike(model, stages)]


def _rounds(model: ModelConfig, stages: int) -> int:
    """The most rounds, which have the smallest bubble."""
    if stages == 1:
        return 1
    return max(r for r in range(1, MAX_ROUNDS + 1) if _alike(model, stages * r))


def _alike(model: ModelConfig, groups: int) -> bool:
    """Whether the layers are `groups` times the same."""
    size, rest = divmod(model.num_layers, groups)
    kinds = tuple(zip(model.windows, model.rotations, model.moe_layers, strict=True))
    return not rest and kinds == kinds[:size] * groups


def execute(
    model: ModelConfig,
    flops: TokenFlops,
    machine: Machine,
    *,
    batch_tokens: float,
    seq_len: int,
    loss_chunk: int,
    dtype: str,
    update_flops: float = 0.0,
    eight_bit: float = 0.0,
) -> Execution | None:
    """The fastest way to run on `machine`, or None if nothing fits or the batch is too small.

    The batch is the multiple of the batch shards that is nearest to `batch_tokens`. A machine whose
    shards need more than 1.5 times `batch_tokens` is too large.

    Args:
      flops: FLOPs per token of `model` at `seq_len`.
      loss_chunk: tokens whose logits exist at one time on a device.
      update_flops: FLOPs of the optimizer's matmuls per step.
      eight_bit: share of the blocks' matmuls with operands of 8 bits.
    """
    states = STATES if dtype == "bfloat16" else STATES[:1]
    found = (
        _fastest(model, flops, machine,
                 layouts(model, machine, dtype, context, {**state, "eight_bit": eight_bit}),
                 batch_tokens, seq_len, loss_chunk, update_flops)
        for context in _contexts(model, machine)
        for state in states
        if seq_len % (2 * context) == 0 or context == 1
    )  # fmt: skip
    return next((best for best in found if best), None)


def _fastest(
    model: ModelConfig,
    flops: TokenFlops,
    machine: Machine,
    options: Iterator[Layout],
    batch_tokens: float,
    seq_len: int,
    loss_chunk: int,
    update_flops: float,
) -> Execution | None:
    """The fastest of the layouts that fit; None if none does."""
    best: Execution | None = None
    capacity = machine.chip.hbm_bytes / machine.chip.devices_per_chip
    for layout in options:
        sequences = sequences_per_step(layout, batch_tokens, seq_len)
        if sequences is None:
            continue
        found = _fit(model, layout, sequences, seq_len, loss_chunk, capacity)
        if found is None:
            continue
        layout, memory = found
        time = step_time(
            model,
            flops,
            machine.chip,
            machine.piece,
            machine.slices,
            layout,
            sequences * seq_len,
            update_flops,
        )
        if best is None or time.expected / sequences < best.time.expected / best.batch_sequences:
            best = Execution(machine, layout, sequences, time, memory)
    return best


def sequences_per_step(layout: Layout, batch_tokens: float, seq_len: int) -> int | None:
    """The multiple of the batch shards that is nearest to the batch; None if that is more than 1.5
    times the batch."""
    shards = layout.batch_shards
    sequences = max(1, round(batch_tokens / seq_len / shards)) * shards
    return None if sequences * seq_len > 1.5 * batch_tokens and sequences > 1 else sequences


def _fit(
    model: ModelConfig,
    layout: Layout,
    sequences: int,
    seq_len: int,
    loss_chunk: int,
    capacity: float,
) -> tuple[Layout, dict[str, int]] | None:
    """The layout with the fewest micro-batches that fits, and its memory; None if none fits."""
    per_shard = sequences // layout.batch_shards
    accumulate = 1
    while accumulate <= per_shard:
        if per_shard % accumulate == 0:
            pieces = per_shard // accumulate if layout.pipeline > 1 else 1
            if pieces % layout.pipeline:
                return None
            chosen = replace(layout, accumulate=accumulate, pieces=pieces)
            tokens = per_shard // accumulate * seq_len // layout.context
            memory = device_bytes(model, chosen, tokens, loss_chunk)
            if fits(memory, capacity):
                return chosen, memory
        accumulate += 1 if accumulate < 4 else accumulate // 2
    return None


def choose(
    model: ModelConfig,
    chip: Chip,
    chips: int | None,
    *,
    tokens: float,
    batch_tokens: float,
    seq_len: int,
    loss_chunk: int,
    dtype: str,
    update_flops: float = 0.0,
    eight_bit: float = 0.0,
) -> Execution | None:
    """The fastest machine that costs at most 5% more than the cheapest and takes under 90 days.
    None if nothing fits (`refusal.why_nothing_fits`).

    Raises:
      UserError: no slices have `chips` chips together.
    """
    flops = token_flops(model, seq_len)
    options = [
        found
        for machine in machines(chip, chips)
        if (
            found := execute(
                model,
                flops,
                machine,
                batch_tokens=batch_tokens,
                seq_len=seq_len,
                loss_chunk=loss_chunk,
                dtype=dtype,
                update_flops=update_flops,
                eight_bit=eight_bit,
            )
        )
    ]
    if not options:
        return None

    def hours(option: Execution) -> float:
        return tokens / (option.batch_sequences * seq_len) * option.time.expected / 3600

    patient = [option for option in options if hours(option) <= PATIENCE_HOURS]
    options = patient or [min(options, key=hours)]
    cheapest = min(hours(option) * option.machine.chips for option in options)
    allowed = [o for o in options if hours(o) * o.machine.chips <= (1 + COST_SLACK) * cheapest]
    return min(allowed, key=hours)
