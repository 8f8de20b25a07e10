"""The rollbacks of a run, `<out>/rollbacks.json`: where it went back to, and what it left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import read_json, require_shape

FILE = "rollbacks.json"


@dataclass(frozen=True)
class Rollback:
    step: int
    """Checkpoint that the run went back to."""
    batches: int
    """Number of batches after it that are left out."""
    why: str
    sequences: int | None = None
    """Number of sequences in these batches; None in files of older versions."""


SHAPE = {"step": int, "batches": int, "why": str, "sequences": (int,)}
"""Fields of a rollback in the file."""


def read_rollbacks(out: Path) -> list[Rollback]:
    """The rollbacks of the run in `out`; raises `UserError` if the file is damaged."""
    if not (out / FILE).is_file():
        return []
    held = read_json(out / FILE)
    require_shape(held, [SHAPE], str(out / FILE))
    return [Rollback(**{name: one.get(name) for name in SHAPE}) for one in held]
