"""Rollbacks: a run goes back to before a series of bad steps, and leaves out their batches.

The guard skips single steps. After `optim.skip_limit` skipped steps in a row, the state is suspect.
The run stops and deletes the checkpoints saved since the first of them. The next start leaves out
the batches between the last good checkpoint and the stop (PaLM, Chowdhery et al. 2022 §5.1).
`<out>/rollbacks.json` records them, and `course` reads it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import jax

from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.runs.files import write_text
from llm_jax.runs.history import History
from llm_jax.runs.rollbacks import FILE, Rollback, read_rollbacks
from llm_jax.train.checkpoint import forget_after


class Diverged(UserError):
    """Too many steps in a row were skipped."""

    exit_code = 1


def roll_back(out: Path, history: History, step: int, streak: int, why: str) -> Diverged:
    """Goes back to before the `streak` of skipped steps that ends with `step`.

    Returns:
      The error to raise. It says how to resume.
    """
    rollbacks = read_rollbacks(out)
    good = step - streak
    if jax.process_index() == 0:
        good = forget_after(out / "checkpoints", good)
        sequences = history.sequences(step) - history.sequences(good)
        rollbacks.append(Rollback(good, step - good, why, sequences))
        write_text(out / FILE, json.dumps([asdict(r) for r in rollbacks], indent=1))
    return Diverged(
        f"The run in {out} skipped {counted(streak, 'step')} in a row up to step {step} ({why}): "
        f"it goes back to checkpoint {good} and leaves out {counted(step - good, 'batch')} after "
        "it; run the same command again to resume."
    )
