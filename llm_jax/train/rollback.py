"""Going back to before a run of bad steps, and leaving the batches out that led there.

The guard skips single steps. When `optim.skip_limit` of them follow each other, the state is
suspect: the run stops, its checkpoints made since are deleted, and `<out>/rollbacks.json` notes
which batches the next start leaves out, those between that checkpoint and the stop (PaLM,
Chowdhery et al. 2022 §5.1). The batch of a step remains a function of the step and of this file.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from llm_jax.config import UserError
from llm_jax.data.pipeline import Batch, Batches
from llm_jax.runs.files import write_text
from llm_jax.train.checkpoint import forget_after

FILE = "rollbacks.json"


@dataclass(frozen=True)
class Rollback:
    step: int
    """Checkpoint that the run went back to."""
    batches: int
    """From there on, so many batches are left out."""
    why: str


class Diverged(UserError):
    """Too many steps in a row could not be taken."""

    exit_code = 1


def read_rollbacks(out: Path) -> list[Rollback]:
    if not (out / FILE).is_file():
        return []
    return [Rollback(**one) for one in json.loads((out / FILE).read_text(encoding="utf-8"))]


def batches_from(
    batches: Batches, start: int, rollbacks: list[Rollback]
) -> Generator[tuple[int, Batch], None, None]:
    """(step, batch) from step `start` on, without what was left out by rollbacks. Endless."""
    while True:
        shift = sum(r.batches for r in rollbacks if r.step <= start)
        end = min((r.step for r in rollbacks if r.step > start), default=None)
        with batches.iterate(start + shift) as source:
            for number, batch in source:
                if number - shift == end:
                    break
                yield number - shift, batch
        assert end is not None  # a shuffled split has no end of its own
        start = end


def roll_back(out: Path, step: int, streak: int, why: str) -> Diverged:
    """Goes back to before the `streak` of skipped steps that `step` ends.

    Returns:
      The error to raise, one sentence for the person who has to start the run again.
    """
    rollbacks = read_rollbacks(out)
    good = step - streak
    if jax.process_index() == 0:
        good = forget_after(out / "checkpoints", good)
        rollbacks.append(Rollback(good, step - good, why))
        write_text(out / FILE, json.dumps([asdict(r) for r in rollbacks], indent=1))
    return Diverged(
        f"The {streak} steps up to {step} of the run in {out} were skipped ({why}): it goes back "
        f"to checkpoint {good} and leaves out the {step - good} batches since; run the same "
        "command to go on."
    )
