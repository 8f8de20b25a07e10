"""Why no machine holds a model: one sentence, with what would be enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from llm_jax.config import ModelConfig
from llm_jax.config.wording import counted
from llm_jax.facts.hardware import CHIPS, Chip
from llm_jax.plan.layout import STATES, layouts, sequences_per_step
from llm_jax.plan.machines import machines
from llm_jax.plan.memory import HEADROOM, device_bytes
from llm_jax.plan.no_run import NoRun


def nothing_fits(
    model: ModelConfig, chip: Chip, chips: int | None, batch_tokens: float, seq_len: int, dtype: str
) -> NoRun:
    """What is too small, by how much, and what would be enough."""
    need, size = _least_memory(model, chip, chips, seq_len, dtype)
    with_batch, machine = _least_memory(model, chip, chips, seq_len, dtype, batch_tokens)
    if need <= _room(chip) < with_batch < inf and chips is not None:
        need, size = with_batch, machine  # micro-batches take memory too
    if need > _room(chip):
        enough = "more chips"
        if chips is None:
            others = [
                other.name
                for other in CHIPS.values()
                if _least_memory(model, other, None, seq_len, dtype)[0] <= _room(other)
            ]
            enough = f"the chips {', '.join(others)}" if others else "no chip that is known"
        return NoRun(
            f"The model needs {need / 1e9:.3g} GB per device on "
            f"{counted(size, f'{chip.name} chip')} of {_room(chip) / 1e9:.3g} GB with "
            f"{HEADROOM:.0%} to spare",
            f"{enough} would hold it, or a smaller model (--params).",
            "lower",
        )
    return NoRun(
        f"A batch of {batch_tokens:.3g} tokens in sequences of {seq_len} is too small for the "
        f"{chips or size} {chip.name} chips that the model needs",
        "take fewer chips, shorter sequences, or a larger --batch-tokens.",
        "lower",
    )


def _room(chip: Chip) -> float:
    """Bytes of a device that a model may use."""
    return (1 - HEADROOM) * chip.hbm_bytes / chip.devices_per_chip


def _least_memory(
    model: ModelConfig,
    chip: Chip,
    chips: int | None,
    seq_len: int,
    dtype: str,
    batch_tokens: float | None = None,
) -> tuple[float, int]:
    """(bytes per device, chips) of the layout that needs least, with one sequence per device and
    micro-batch; (inf, 0) if the batch is too small for every layout.

    Args:
      batch_tokens: tokens of a step; None: as many as one sequence per device.
    """

    state = STATES[-1] if dtype == "bfloat16" else STATES[0]

    def needs() -> Iterator[tuple[float, int]]:
        for machine in machines(chip, chips):
            for layout in layouts(model, machine, dtype, 1, state):
                if batch_tokens is not None:
                    sequences = sequences_per_step(layout, batch_tokens, seq_len)
                    if sequences is None:
                        continue
                    layout = replace(layout, accumulate=sequences // layout.batch_shards)
                yield sum(device_bytes(model, layout, seq_len, 512).values()), machine.chips

    return min(needs(), default=(inf, 0))
