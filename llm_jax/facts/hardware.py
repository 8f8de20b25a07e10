"""Accelerators as data: peak rates, memory, links, slices, and the source of each figure.

Rates are dense peaks per chip. Bandwidths are in bytes per second. `ici_bandwidth` is that of one
link in one direction; a torus axis has a link in each direction. A figure that the maker has not
published is None; then the user must give it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations_with_replacement
from math import prod
from typing import Literal

from llm_jax.config import UserError, nearest

GB = 1e9
GIB = 2.0**30

TPU_DOCS = "Google Cloud TPU documentation, cloud.google.com/tpu/docs (read 2026-11)"
SCALING_BOOK = "How to scale your model, chapter 2, jax-ml.github.io/scaling-book (2025-02)"
NVIDIA = "NVIDIA data sheets, dense rates (A100 2021, H100 2023, H200 2024, B200 2025)"
DGX = "NVIDIA DGX system data sheets: one network card per GPU (A100 200 Gb/s, later 400 Gb/s)"
JOUPPI = "Jouppi et al. 2023, TPU v4 (ISCA), maximum measured power per chip"


@dataclass(frozen=True)
class Slice:
    """Chips that share one interconnect."""

    shape: tuple[int, ...]
    """Chips along each axis of the torus, e.g. (4, 4, 8)."""
    name: str
    """The cloud's accelerator type, e.g. `v5p-256` (cores) or `v6e-64` (chips)."""
    hosts: int
    """Host machines."""
    wraps: tuple[bool, ...]
    """Whether each axis is a ring. An open axis moves data at about half the rate."""

    @property
    def chips(self) -> int:
        """Number of chips."""
        return prod(self.shape)

    @property
    def topology(self) -> str:
        """Sizes of the axes, such as `4x4x8`."""
        return "x".join(map(str, self.shape))


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator. Units: FLOP/s, bytes, bytes/s, watts. Prices are in `facts/prices.py`."""

    name: str
    kind: Literal["tpu", "gpu", "cpu"]
    bf16_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    """One link in one direction. NVLink: all links of a GPU together, in one direction."""
    ici_axes: int
    """Torus dimensions: 3 or 2; 1 for a switch or a single chip."""
    dcn_bandwidth: float
    """Network between slices (TPU) or nodes (GPU), in one direction, per chip."""
    pcie_bandwidth: float
    chips_per_host: int
    max_slice_chips: int
    devices_per_chip: int = 1
    """JAX devices per chip; they share its memory and rates."""
    cores_in_name: int = 1
    """Number that one chip adds to the accelerator type: 2 if the name counts cores."""
    f32_flops: float | None = None
    """Set only for chips that train in float32 (CPUs)."""
    int8_flops: float | None = None
    fp8_flops: float | None = None
    score_rate: float | None = None
    """Attention scores per second in both passes, not counting their matmul FLOPs. Set if softmax
    and matmuls take turns (CPUs); None if other units compute softmax at the same time."""
    attainable: float | None = None
    """Share of the measured peak that training steps reach: of CPUs alone. That of accelerators
    is fitted to published runs (`facts/calibration.py`)."""
    step_overhead: float | None = None
    """Fixed seconds per step, if known and not negligible (CPUs)."""
    watts: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """Field name → source of its value, with the date."""

    def peak(self, dtype: str) -> float:
        """Peak FLOP/s of matmuls with operands of `dtype`."""
        return self.f32_flops or self.bf16_flops if dtype == "float32" else self.bf16_flops

    @property
    def torus(self) -> bool:
        """Whether chips are connected as a torus (TPUs)."""
        return self.kind == "tpu"

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """The slices that a plan can use, from small to large; for each size the most cubic."""
        best: dict[int, tuple[int, ...]] = {}
        for shape in self._shapes():
            chips = prod(shape)
            if chips not in best or max(shape) < max(best[chips]):
                best[chips] = shape
        return tuple(self._slice(shape) for _, shape in sorted(best.items()))

    def _shapes(self) -> Iterator[tuple[int, ...]]:
        if self.kind == "tpu" and self.ici_axes == 2:
            yield from [(1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
        elif self.kind == "tpu":
            yield from [(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)]
            for shape in combinations_with_replacement(range(4, 29, 4), 3):
                # Long thin tori are legal, but never better than others of the same size.
                if prod(shape) <= self.max_slice_chips and shape[2] <= 2 * shape[0]:
                    yield shape
        else:
            size = 1
            while size <= self.max_slice_chips:
                yield (size,)
                size *= 2

    def _slice(self, shape: tuple[int, ...]) -> Slice:
        chips = prod(shape)
        if self.kind == "tpu" and self.ici_axes == 3:
            closed = all(size % 4 == 0 for size in shape)
            wraps = tuple(closed for _ in shape)
        elif self.kind == "tpu":
            wraps = tuple(size == 16 for size in shape)
        else:
            wraps = (True,)
        prefix = "v5litepod" if self.name == "v5e" else self.name
        name = f"{prefix}-{chips * self.cores_in_name}" if self.torus else f"{chips}x {self.name}"
        return Slice(shape, name, max(1, chips // self.chips_per_host), wraps)


def _tpu(name: str, **values: object) -> Chip:
    sources = dict.fromkeys(
        ("bf16_flops", "int8_flops", "fp8_flops", "hbm_bytes", "max_slice_chips", "cores_in_name"),
        TPU_DOCS,
    )
    sources |= dict.fromkeys(
        ("hbm_bandwidth", "ici_bandwidth", "dcn_bandwidth", "pcie_bandwidth", "chips_per_host"),
        SCALING_BOOK,
    )
    sources |= {
        "ici_axes": TPU_DOCS,
        "devices_per_chip": TPU_DOCS,
        "watts": JOUPPI,
    }
    return Chip(
        name=name,
        kind="tpu",
        sources=sources,
        **values,  # type: ignore[arg-type]
    )


def _gpu(name: str, dcn: float, **values: object) -> Chip:
    sources = dict.fromkeys(
        ("bf16_flops", "int8_flops", "fp8_flops", "hbm_bytes", "hbm_bandwidth", "watts"), NVIDIA
    )
    sources |= dict.fromkeys(("ici_bandwidth", "ici_axes", "pcie_bandwidth"), NVIDIA)
    sources |= dict.fromkeys(("dcn_bandwidth", "chips_per_host", "max_slice_chips"), DGX)
    sources |= {"cores_in_name": "names count GPUs", "devices_per_chip": NVIDIA}
    return Chip(
        name=name,
        kind="gpu",
        sources=sources,
        ici_axes=1,
        dcn_bandwidth=dcn,
        chips_per_host=8,
        max_slice_chips=8,
        **values,  # type: ignore[arg-type]
    )


# fmt: off
_CHIPS = (
    _tpu("v4", bf16_flops=275e12, int8_flops=275e12, hbm_bytes=32 * GB, hbm_bandwidth=1200 * GB,
         ici_bandwidth=45 * GB, ici_axes=3, dcn_bandwidth=6.25 * GB, pcie_bandwidth=15 * GB,
         chips_per_host=4, max_slice_chips=4096, cores_in_name=2, watts=192.0),
    _tpu("v5e", bf16_flops=197e12, int8_flops=394e12, hbm_bytes=16 * GB, hbm_bandwidth=810 * GB,
         ici_bandwidth=45 * GB, ici_axes=2, dcn_bandwidth=3.125 * GB, pcie_bandwidth=15 * GB,
         chips_per_host=4, max_slice_chips=256),
    _tpu("v5p", bf16_flops=459e12, int8_flops=918e12, hbm_bytes=95 * GIB, hbm_bandwidth=2765 * GB,
         ici_bandwidth=90 * GB, ici_axes=3, dcn_bandwidth=6.25 * GB, pcie_bandwidth=15 * GB,
         chips_per_host=4, max_slice_chips=6144, cores_in_name=2),
    _tpu("v6e", bf16_flops=918e12, int8_flops=1836e12, hbm_bytes=32 * GB, hbm_bandwidth=1638 * GB,
         ici_bandwidth=90 * GB, ici_axes=2, dcn_bandwidth=12.5 * GB, pcie_bandwidth=32 * GB,
         chips_per_host=4, max_slice_chips=256),
    _tpu("tpu7x", bf16_flops=2307e12, fp8_flops=4614e12, hbm_bytes=192 * GIB,
         hbm_bandwidth=7380 * GB, ici_bandwidth=200 * GB, ici_axes=3, dcn_bandwidth=12.5 * GB,
         pcie_bandwidth=32 * GB, chips_per_host=4, max_slice_chips=9216, cores_in_name=2,
         devices_per_chip=2),
    _gpu("a100", dcn=25 * GB, bf16_flops=312e12, int8_flops=624e12, hbm_bytes=80 * GB,
         hbm_bandwidth=2000 * GB, ici_bandwidth=300 * GB, pcie_bandwidth=32 * GB, watts=400.0),
    _gpu("h100", dcn=50 * GB, bf16_flops=989e12, fp8_flops=1979e12, hbm_bytes=80 * GB,
         hbm_bandwidth=3350 * GB, ici_bandwidth=450 * GB, pcie_bandwidth=64 * GB,
         watts=700.0),
    _gpu("h200", dcn=50 * GB, bf16_flops=989e12, fp8_flops=1979e12, hbm_bytes=141 * GB,
         hbm_bandwidth=4800 * GB, ici_bandwidth=450 * GB, pcie_bandwidth=64 * GB, watts=700.0),
    _gpu("b200", dcn=50 * GB, bf16_flops=2250e12, fp8_flops=4500e12, hbm_bytes=180 * GB,
         hbm_bandwidth=8000 * GB, ici_bandwidth=900 * GB, pcie_bandwidth=64 * GB, watts=1000.0),
)
# fmt: on

CHIPS: dict[str, Chip] = {chip.name: chip for chip in _CHIPS}


def chip(name: str) -> Chip:
    """The chip of that name.

    Raises:
      UserError: the table has no such chip; the sentence names the nearest.
    """
    if name not in CHIPS:
        raise UserError(f"There is no chip {name!r}: {nearest(name, [*CHIPS, 'local'])}")
    return CHIPS[name]
