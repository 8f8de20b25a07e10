"""Damaged checkpoints are moved away before a run resumes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from llm_jax.config.wording import counted
from llm_jax.train import distributed
from llm_jax.train.manifest import (
    checkpoint_bytes,
    damage_sentence,
    first_damage,
    unchecked_sentence,
)
from llm_jax.train.sums import NOTE

UNDAMAGED, NOTE_DAMAGED = 2**30, -2
"""Beside the places of `first_damage`."""


def saved_steps(folder: Path) -> list[int]:
    """Steps of the whole checkpoints in a `checkpoints` folder, newest first."""
    found = ocp.path.step.standard_name_format().find_all(folder)
    return sorted((one.step for one in found), reverse=True)


def set_damaged_aside(folder: Path) -> list[str]:
    """Moves damaged checkpoints out of `folder` until the newest one is undamaged.

    Each process reads an equal share of a checkpoint's bytes, and all agree on what was found.
    Orbax reads its note about every checkpoint, so older checkpoints whose note is damaged are
    moved too.

    Returns, on process 0, a sentence for each damaged checkpoint, and one about the newest other.
    """
    notes, newest = [], None
    steps = saved_steps(folder)
    for step in steps:
        checkpoint, began = folder / str(step), time.monotonic()
        place = _note_damage(checkpoint)
        if place is None and newest is None:
            place = first_damage(checkpoint, jax.process_index(), jax.process_count())
        worst = _lowest(place)
        if jax.process_index() == 0 and worst is not None:
            notes.append(_move_aside(checkpoint, worst, newest, last=step == steps[-1]))
        elif jax.process_index() == 0 and newest is None:
            notes.append(_verified(checkpoint, time.monotonic() - began))
        if worst is None and newest is None:
            newest = step
    distributed.wait_for_all("damaged checkpoints are aside")
    return notes


def shared_damage(checkpoint: Path, items: Collection[str] = ()) -> int | None:
    """As `manifest.first_damage`, but each process reads an equal share of the bytes, and all
    return the same. All processes must call it."""
    return _lowest(first_damage(checkpoint, jax.process_index(), jax.process_count(), items))


def _lowest(place: int | None) -> int | None:
    """The lowest place that any process has; None if none has one."""
    mine = np.int32(UNDAMAGED if place is None else place)
    lowest = int(np.min(multihost_utils.process_allgather(mine)))
    return None if lowest == UNDAMAGED else lowest


def _move_aside(checkpoint: Path, place: int, newest: int | None, last: bool) -> str:
    """Moves a checkpoint to `damaged/`. Returns a sentence that says why, and what is used."""
    why = (
        f"Orbax's note {NOTE} cannot be read"
        if place == NOTE_DAMAGED
        else damage_sentence(checkpoint, place)
    )
    aside = checkpoint.parents[1] / "damaged" / checkpoint.name
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    used = "there is none before it" if last else "the one before is used"
    used = used if newest is None else f"checkpoint {newest} is used"
    return f"Checkpoint {checkpoint.name} is damaged ({why}): it was moved to {aside}, and {used}."


def _verified(checkpoint: Path, seconds: float) -> str:
    step, size = int(checkpoint.name), checkpoint_bytes(checkpoint)
    if size is None:
        return unchecked_sentence(step)
    processes = counted(jax.process_count(), "process")
    each = size / jax.process_count() / 1e6
    return (
        f"Checkpoint {step} is undamaged: {processes} read {each:,.1f} MB each, in {seconds:.1f} s."
    )


def _note_damage(checkpoint: Path) -> int | None:
    """`NOTE_DAMAGED` if Orbax cannot read its note about the checkpoint. A missing one is fine."""
    name_format = ocp.path.step.standard_name_format()
    try:
        name_format.find_step(checkpoint.parent, int(checkpoint.name)).commit_timestamp  # noqa: B018
    except (ValueError, TypeError, KeyError, AttributeError):
        return NOTE_DAMAGED
    return None
