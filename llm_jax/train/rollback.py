"""Going back to before a run of bad steps, and leaving the batches out that led there.

The guard skips single steps. When `optim.skip_limit` of them follow each other, the state is
suspect: the run stops, its checkpoints made since are deleted, and `<out>/rollbacks.json` notes
which batches the next start leaves out, those between that checkpoint and the stop (PaLM,
Chowdhery et al. 2022 §5.1). What a step reads remains computed, from this file too (`course`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.runs.files import write_text
from llm_jax.runs.history import History
from llm_jax.train.checkpoint import forget_after

FILE = "rollbacks.json"


@dataclass(frozen=True)
class Rollback:
    step: int
    """Checkpoint that the run went back to."""
    batches: int
    """From there on, so many batches are left out."""
    why: str
    sequences: int | None = None
    """What these batches hold; None in files that were written before this was noted."""


SHAPE = {"step": int, "batches": int, "why": str, "sequences": (int,)}
"""Of a rollback in the file."""


class Diverged(UserError):
    """Too many steps in a row could not be taken."""

    exit_code = 1


def read_rollbacks(out: Path) -> list[Rollback]:
    """Those noted in the run folder `out`; raises `UserError` if the file is damaged."""
    if not (out / FILE).is_file():
        return []
    held = read_json(out / FILE)
    require_shape(held, [SHAPE], str(out / FILE))
    return [Rollback(**{name: one.get(name) for name in SHAPE}) for one in held]


def roll_back(out: Path, history: History, step: int, streak: int, why: str) -> Diverged:
    """Goes back to before the `streak` of skipped steps that `step` ends.

    Returns:
      The error to raise, one sentence for the person who has to start the run again.
    """
    rollbacks = read_rollbacks(out)
    good = step - streak
    if jax.process_index() == 0:
        good = forget_after(out / "checkpoints", good)
        sequences = history.sequences(step) - history.sequences(good)
        rollbacks.append(Rollback(good, step - good, why, sequences))
        write_text(out / FILE, json.dumps([asdict(r) for r in rollbacks], indent=1))
    return Diverged(
        f"The {streak} steps up to {step} of the run in {out} were skipped ({why}): it goes back "
        f"to checkpoint {good} and leaves out the {step - good} batches since; run the same "
        "command to go on."
    )
