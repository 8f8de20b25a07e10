"""The machines that a plan can choose from: slices of TPUs, nodes of GPUs, this computer."""

from __future__ import annotations

from dataclasses import dataclass

from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.facts.hardware import Chip, Slice

MAX_SLICES = 32
MAX_NODES = 2048


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
