"""A chip, or a machine, by the name that people and clouds give it: `v5e`, `v5e-64`, `8xh100`."""

from __future__ import annotations

import math
import re

from llm_jax.config import UserError, nearest
from llm_jax.facts.hardware import CHIPS, Chip, Slice

NAME = re.compile(r"(?:([\d,]+)\s*[x×*]\s*)?([a-z][a-z0-9]*)(?:-(\d+))?", re.I)
"""(how many), chip, (size of the slice)."""
ALSO = {"v5litepod": "v5e", "v5lite": "v5e", "trillium": "v6e", "ironwood": "tpu7x", "v7x": "tpu7x"}
"""Other names of chips."""


def machine_named(name: str) -> tuple[Chip, int | None]:
    """The chip, and the number of chips if the name says it.

    `v5p-128` is a slice of 64 chips, since names of v4, v5p and tpu7x count cores; `2xv5e-256` are
    512 chips, `8xh100` and `h100-8` are 8.

    Raises:
      UserError: there is no such chip, or no slice of that size; the sentence names the nearest.
    """
    found = NAME.fullmatch(name.strip())
    times, kind, size = found.groups() if found else (None, name, None)
    kind = ALSO.get(kind.lower(), kind.lower())
    if kind not in CHIPS:
        raise UserError(f"There is no chip {name!r}: {nearest(kind, [*CHIPS, 'local'])}")
    chip, many = CHIPS[kind], int((times or "1").replace(",", ""))
    if many < 1:
        raise UserError(f"--chip is {name!r}: give 1 or more of them.")
    if size is None:
        return chip, many if times else None
    if not chip.torus:
        return chip, many * int(size)
    for piece in chip.slices:
        if piece.chips * chip.cores_in_name == int(size):
            return chip, many * piece.chips
    raise UserError(f"There is no slice {name!r}: the nearest are {_near(chip, int(size))}.")


def _near(chip: Chip, size: int) -> str:
    """The three slices nearest to a size in the units of its name, from small to large."""

    def named(piece: Slice) -> int:
        return piece.chips * chip.cores_in_name

    close = sorted(chip.slices, key=lambda piece: abs(math.log(named(piece) / max(size, 1))))[:3]
    names = [f"{chip.name}-{named(piece)}" for piece in sorted(close, key=named)]
    return f"{', '.join(names[:-1])} and {names[-1]}"
