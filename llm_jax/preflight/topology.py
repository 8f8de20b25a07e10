"""TPU slices by name, as devices to compile for, without running on them."""

from __future__ import annotations

import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.facts.attached import WITHOUT_TPU
from llm_jax.facts.hardware import CHIPS, Chip, Slice
from llm_jax.plan.machines import Machine

MEGACORE = ("v4", "v5p")
"""Chips whose two cores JAX sees as one device: their compiler configuration is `megacore`."""


MOST_CHIPS = 65_536
"""Of a machine that is compiled for; the largest that was published has 50,944."""


def find(name: str, slices: int = 1) -> Machine:
    """`slices` slices of an accelerator type (`v5p-128`, `v5e-256`) or of a torus (`v5p:4x4x4`).

    Names of v4, v5p and tpu7x count cores, two per chip. Names of v5e and v6e count chips.

    Raises:
      UserError: there is no such slice; the message names the nearest ones.
    """
    found = re.fullmatch(
        r"(?:(\d{1,9})x\s*)?([a-z0-9]+?)(?:(-)(\d{1,9})|:([\dx]{1,30}))", name.strip()
    )
    said = {"v5litepod": "v5e", "v5lite": "v5e", "v7x": "tpu7x"}
    kind = said.get(found.group(2), found.group(2)) if found else name
    chip = CHIPS.get(kind)
    if not found or chip is None or not chip.torus:
        tpus = [_short(c, c.slices[4]) for c in CHIPS.values() if c.torus]
        raise UserError(
            f"There is no TPU topology {name!r}: name a slice such as {', '.join(tpus)}, or its "
            "torus such as v5p:4x4x4."
        )
    count = int(found.group(1) or 1) * slices
    if count < 1:
        raise UserError(f"--slices is {slices}: give 1 or more.")
    wanted = found.group(4) or found.group(5)
    for piece in chip.slices:
        if wanted in (piece.topology, str(piece.chips * chip.cores_in_name)):
            if count * piece.chips > MOST_CHIPS:
                raise UserError(
                    f"--slices is {slices}: the compiler is asked for {MOST_CHIPS:,} chips at most."
                )
            return Machine(chip, piece, count)
    raise UserError(f"There is no TPU slice {name!r}: the nearest are {near(chip, wanted)}.")


def near(chip: Chip, wanted: str) -> str:
    """The four slices nearest in size to `wanted`, a number of cores or chips, or a torus."""
    size = 1
    for number in wanted.split("x"):
        size *= max(int(number or 1), 1)
    if "x" not in wanted:
        size //= chip.cores_in_name
    close = sorted(chip.slices, key=lambda piece: abs(math.log(piece.chips / max(size, 1))))[:4]
    ordered = sorted(close, key=lambda piece: piece.chips)
    return ", ".join(f"{_short(chip, piece)} ({piece.topology})" for piece in ordered)


def _short(chip: Chip, piece: Slice) -> str:
    return f"{chip.name}-{piece.chips * chip.cores_in_name}"


def require_compiler() -> None:
    """Raises `UserError` if libtpu, the TPU compiler, is not installed."""
    require_packages("Compiling for TPUs", "libtpu")


def devices(machine: Machine) -> tuple[jax.Device, ...]:
    """Devices of `machine` to build a mesh from; no array can be placed on them.

    Raises:
      UserError: the TPU compiler is not installed.
    """
    require_compiler()
    for name, value in WITHOUT_TPU.items():
        os.environ.setdefault(name, value)
    shape = machine.piece.shape
    options: dict[str, Any] = {}
    if machine.chip.name in MEGACORE:
        options["chip_config_name"] = "megacore"
    if machine.piece.chips < 4:  # less than one host
        options["chips_per_host_bounds"] = [*shape, 1, 1][:3]
    if machine.slices > 1:
        options["num_slices"] = machine.slices
    found = topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{machine.chip.name}:{machine.piece.topology}",
        **options,
    )
    return tuple(found.devices)
