"""What published training runs say about the time of a step: factors on the roofline.

`calibration.json` is written by `benchmarks/calibrate.py`, which fits these few numbers to the runs
in `benchmarks/published_runs.csv` and says how far off they are. Chips without a published run take
the mean of their kind, and a wider interval.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import read_config
from llm_jax.facts.hardware import Chip

FILE = Path(__file__).with_name("calibration.json")


@dataclass(frozen=True, kw_only=True)
class ChipFactors:
    """What is fitted for one chip."""

    name: str
    share: float
    """Share of the dense peak that matmuls reach which are wide enough."""
    interval: float
    """Half of the 90% prediction interval of ln(seconds), by the errors in cross-validation."""
    runs: int
    """Published runs that it is fitted to."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The fitted factors, and where they are from."""

    date: str
    source: str
    chips: tuple[ChipFactors, ...]
    attention: float
    """Share that scores and values reach, relative to wide matmuls."""
    half_width: float
    """Width of a device's part of a matmul that reaches half of the share."""
    fsdp: float
    """Share of fsdp's communication that compute does not hide."""
    tensor: float
    """The same of tensor parallelism."""
    data: float
    """The same of the gradients' exchange."""
    per_doubling: float
    """Time that is added by each doubling of the slices."""
    experts: float
    """Share that the matmuls of routed experts reach, relative to wide matmuls."""
    expert_half_rows: float
    """Tokens of one expert on a device at which its matmuls reach half of that."""
    eight_bit: float
    """Share of their peak that 8-bit matmuls reach, relative to bfloat16's share of its own."""
    unknown_interval: float
    """`interval` of a chip without published runs."""
    sparse_interval: float
    """Least `interval` of a model with experts."""
    eight_bit_interval: float
    """Least `interval` of 8-bit matmuls."""

    def exposed(self) -> dict[str, float]:
        """Share of the communication that compute does not hide, by mesh axis.

        No published run tells those of the last three. A layer waits for its experts' tokens as it
        does for `tensor`; keys arrive beside attention as weights do beside matmuls; pieces move
        to the next stage once, like gradients.
        """
        return {
            "fsdp": self.fsdp,
            "tensor": self.tensor,
            "data": self.data,
            "expert": self.tensor,
            "context": self.fsdp,
            "pipeline": self.data,
        }

    def of(self, chip: Chip) -> ChipFactors:
        """The factors of `chip`. Without a run of it: the mean share of its kind, and
        `unknown_interval`. A CPU's share is its own, and its time is measured, not fitted."""
        for known in self.chips:
            if known.name == chip.name:
                return known
        if chip.kind == "cpu":
            return ChipFactors(name=chip.name, share=chip.attainable or 1.0, interval=0.0, runs=0)
        alike = [one.share for one in self.chips if (one.name == "h100") == (chip.kind == "gpu")]
        share = sum(alike) / len(alike)
        return ChipFactors(name=chip.name, share=share, interval=self.unknown_interval, runs=0)


@functools.cache
def calibration() -> Calibration:
    """The factors in `calibration.json`."""
    return read_config(FILE, Calibration, "calibration")
