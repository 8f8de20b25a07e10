"""Finds the slice, the mesh and the memory policy for a model: what fits, and how fast it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from llm_jax.config import ModelConfig, UserError
from llm_jax.config.wording import counted
from llm_jax.facts.counts import Remat, TokenFlops, token_flops
from llm_jax.facts.hardware import CHIPS, Chip, Slice
from llm_jax.plan.memory import HEADROOM, Dtype, Layout, device_bytes, fits
from llm_jax.plan.roofline import StepTime, step_time

ON_DEVICE: tuple[Remat, ...] = ("none", "dots", "full")
REMATS: tuple[Remat, ...] = (*ON_DEVICE, "offload")
STATES: tuple[tuple[Dtype, Dtype], ...] = (
    ("float32", "float32"),
    ("bfloat16", "float32"),
    ("bfloat16", "bfloat16"),
)
"""Dtypes of moments and gradients, in the order in which they are tried: the next only if nothing
fits, since training in float32 is the better known."""
TENSOR_SIZES = (1, 2, 4, 8, 16)
MAX_SLICES = 32
MAX_NODES = 2048
COST_SLACK = 0.05
"""A faster slice is chosen if it costs at most this much more than the cheapest one."""
PATIENCE_HOURS = 90 * 24
"""A slice on which the run takes longer than this is chosen only if no slice is faster."""


@dataclass(frozen=True)
class Machine:
    """One or more slices of the same kind."""

    chip: Chip
    piece: Slice
    slices: int

    @property
    def chips(self) -> int:
        """Number of chips in all slices."""
        return self.piece.chips * self.slices

    @property
    def devices(self) -> int:
        """Number of JAX devices."""
        return self.chips * self.chip.devices_per_chip

    @property
    def name(self) -> str:
        """For example `v5p-256`, `2x v5p-12288` or `64x h100`."""
        if not self.chip.torus:
            return f"{self.chips}x {self.chip.name}"
        return self.piece.name if self.slices == 1 else f"{self.slices}x {self.piece.name}"


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


def machines(chip: Chip, chips: int | None) -> list[Machine]:
    """All machines whose number of chips is a power of two; or, for `chips`, the one with exactly
    that many, in the largest slices.

    Powers of two divide batches and widths, and clouds offer them.

    Raises:
      UserError: no slices have `chips` chips together; the sentence names the nearest sizes.
    """
    most = MAX_SLICES if chip.torus else MAX_NODES
    if chip.kind == "cpu":
        most = 1
    found = [Machine(chip, piece, 1) for piece in chip.slices if piece.chips.bit_count() == 1]
    count = 2
    while count <= most:
        found.append(Machine(chip, found[-1].piece, count))
        count *= 2
    if chips is None:
        return found
    exact = [
        Machine(chip, piece, chips // piece.chips)
        for piece in chip.slices
        if chips % piece.chips == 0 and chips // piece.chips <= most
    ]
    if not exact:
        near = sorted({m.chips for m in found}, key=lambda size: abs(size - chips))[:3]
        raise UserError(
            f"No slices of {chip.name} have {counted(chips, 'chip')} together: choose "
            f"{' or '.join(map(str, sorted(near)))}."
        )
    return exact[-1:]


def layouts(
    model: ModelConfig, machine: Machine, dtype: str, state: tuple[Dtype, Dtype] = STATES[0]
) -> Iterator[Layout]:
    """Meshes that divide the model's widths: tensor within a slice, then fsdp; the rest is data.

    Block inputs are offloaded to the host on TPUs only, where the compiler hides the transfers.
    """
    per_slice = machine.piece.chips * machine.chip.devices_per_chip
    reach = per_slice if machine.chip.torus else machine.devices
    for tensor in TENSOR_SIZES:
        widths = (model.num_heads, model.num_kv_heads, model.d_ff, model.vocab_size)
        if per_slice % tensor or any(width % tensor for width in widths):
            continue
        sizes = {1, gcd(per_slice // tensor, model.d_model), gcd(reach // tensor, model.d_model)}
        for fsdp in sorted(sizes):
            data = machine.devices // (tensor * fsdp)
            for remat in REMATS if machine.chip.kind == "tpu" else ON_DEVICE:
                yield Layout(
                    data=data, fsdp=fsdp, tensor=tensor, accumulate=1, remat=remat, dtype=dtype,
                    moments=state[0], gradients=state[1],
                )  # fmt: skip


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
) -> Execution | None:
    """The fastest way to run on `machine`, or None if nothing fits or the batch is too small.

    The batch is the multiple of the batch shards that is nearest to `batch_tokens`. A machine whose
    shards need more than 1.5 times `batch_tokens` is too large.

    Args:
      flops: FLOPs per token of `model` at `seq_len`.
      loss_chunk: tokens whose logits exist at one time on a device.
      update_flops: FLOPs of the optimizer's matmuls per step.
    """
    states = STATES if dtype == "bfloat16" else STATES[:1]
    found = (
        _fastest(model, flops, machine, layouts(model, machine, dtype, state), batch_tokens,
                 seq_len, loss_chunk, update_flops)
        for state in states
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
        shards = layout.batch_shards
        sequences = max(1, round(batch_tokens / seq_len / shards)) * shards
        if sequences * seq_len > 1.5 * batch_tokens and sequences > 1:
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
            memory = device_bytes(model, layout, per_shard // accumulate * seq_len, loss_chunk)
            if fits(memory, capacity):
                chosen = Layout(**{**layout.__dict__, "accumulate": accumulate})
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
) -> Execution:
    """The fastest machine that costs at most 5% more than the cheapest and takes under 90 days.

    Raises:
      UserError: the model does not fit any slice of the chip, or the batch is too small for all.
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
            )
        )
    ]
    if not options:
        raise UserError(_why_nothing_fits(model, chip, chips, batch_tokens, seq_len, dtype))

    def hours(option: Execution) -> float:
        return tokens / (option.batch_sequences * seq_len) * option.time.expected / 3600

    patient = [option for option in options if hours(option) <= PATIENCE_HOURS]
    options = patient or [min(options, key=hours)]
    cheapest = min(hours(option) * option.machine.chips for option in options)
    allowed = [o for o in options if hours(o) * o.machine.chips <= (1 + COST_SLACK) * cheapest]
    return min(allowed, key=hours)


def _why_nothing_fits(
    model: ModelConfig, chip: Chip, chips: int | None, batch_tokens: float, seq_len: int, dtype: str
) -> str:
    """One sentence: what is too small, by how much, and what would be enough."""
    need, size = _least_memory(model, chip, chips, seq_len, dtype)
    room = (1 - HEADROOM) * chip.hbm_bytes / chip.devices_per_chip
    if need > room:
        enough = [
            other.name
            for other in CHIPS.values()
            if _least_memory(model, other, None, seq_len, dtype)[0]
            <= (1 - HEADROOM) * other.hbm_bytes / other.devices_per_chip
        ]
        what = f"the chips {', '.join(enough)}" if enough else "a model split over pipelines"
        return (
            f"The model needs {need / 1e9:.3g} GB per device on "
            f"{counted(size, f'{chip.name} chip')} of {room / 1e9:.3g} GB with {HEADROOM:.0%} to "
            f"spare: {what} would hold it, or a smaller "
            "model (--params)."
        )
    return (
        f"A batch of {batch_tokens:.3g} tokens in sequences of {seq_len} is too small for the "
        f"{chips or size} {chip.name} chips that the model needs: take fewer chips, shorter "
        "sequences, or a larger --batch-tokens."
    )


def _least_memory(
    model: ModelConfig, chip: Chip, chips: int | None, seq_len: int, dtype: str
) -> tuple[int, int]:
    """(bytes per device, chips) of the layout that needs least, with one sequence per device."""
    return min(
        (sum(device_bytes(model, layout, seq_len, 512).values()), machine.chips)
        for machine in machines(chip, chips)
        for layout in layouts(model, machine, dtype, STATES[-1 if dtype == "bfloat16" else 0])
    )
