"""Determines whether a start begins a run, resumes it, or finds it finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from llm_jax.config import ConfigError, RunConfig, from_dict
from llm_jax.runs.history import Entry, History, beginning, read_history
from llm_jax.runs.lineage import Lineage, saved_lineage
from llm_jax.runs.metric_names import own_figures
from llm_jax.runs.places import folder_and_step
from llm_jax.runs.plan_file import PlanRecord
from llm_jax.runs.rollbacks import read_rollbacks
from llm_jax.train import agree, distributed
from llm_jax.train.changes import check_standing, resume
from llm_jax.train.checkpoint import Checkpointer
from llm_jax.train.failures import Damaged
from llm_jax.train.feed import Datasets, training_text
from llm_jax.train.inherit import parent_of
from llm_jax.train.lineage import began_with
from llm_jax.train.metrics import METRICS_FILE, read_metrics
from llm_jax.train.run_folder import check_folder, claim_folder
from llm_jax.train.shares import check_reading
from llm_jax.train.state import State
from llm_jax.train.task_scores import scored_before


@dataclass(frozen=True)
class Place:
    checkpointer: Checkpointer
    history: History
    lines: list[Entry]
    """The history's new lines."""
    saved: int | None
    """Checkpoint that the run resumes from; None if it is new."""
    measured: dict[str, Any] | None
    """What was measured there (see `measured_before`)."""
    lineage: Lineage | None
    """Of that checkpoint; None if the run is new, or the checkpoint is from an older version."""
    scored: bool
    """Whether an earlier start scored the run's tasks there."""
    finished: bool
    """All steps are done and evaluated. Then nothing is written."""

    @property
    def step(self) -> int:
        return self.saved or 0


def find_place(
    config: RunConfig,
    plan: PlanRecord | None,
    datasets: Datasets,
    abstract: State,
    init: str | None,
) -> Place:
    """Opens the run in `config.out`, or creates the folder of a new one.

    Args:
      plan: the prediction for `config`.
      abstract: the state to restore a checkpoint to.
      init: run, or checkpoint of a run, whose weights a new run begins with.

    Raises:
      ConfigError: the folder, or `init`, does not match `config`.
      Damaged: the run is a branch, and no undamaged checkpoint of it is left.
    """
    out, text = Path(config.out), training_text(datasets, config)
    tokenizer = datasets[0].tokenizer
    sha256 = datasets[0].tokenizer.sha256
    old = distributed.all_pass(lambda: check_folder(config, tokenizer))
    agree.require_one_folder(config.out, old is not None)
    checkpointer = Checkpointer.open(config, sha256, abstract) if old else None
    saved = checkpointer.newest(abstract) if checkpointer else None
    if old is None or checkpointer is None or saved is None:
        parent = distributed.all_pass(lambda: _parent(init, config, sha256))
        began_with(parent)  # what it has read can be told
        if old:
            before = read_history(out, old)
            _check_past(config.out, before, checkpointer.notes if checkpointer else [])
            parent = parent or before.parent
        history = beginning(config, text, parent)
        check_reading(config, history, [], text)
        lines = [*history.entries]
        claim_folder(config, plan, tokenizer, lines)
        checkpointer = checkpointer or Checkpointer.open(config, sha256, abstract)
        return Place(checkpointer, history, lines, None, None, None, False, False)
    measured = measured_before(out, saved)
    scored = not config.eval.tasks or scored_before(out, saved)
    record = checkpointer.record(saved)
    was = from_dict(record["config"], RunConfig) if record else old
    history, lines = resume(config, was, text, saved)
    check_standing(config.out, history, saved, record)
    if init:
        _check_parent(config.out, history, init)
    # A last step that only the hosts' own disks have is yet to be saved in the folder.
    whole = saved == checkpointer.latest_step and saved >= max(old.steps, config.steps)
    finished = measured is not None and whole and (scored or saved != config.steps)
    if not finished:
        check_reading(config, history, read_rollbacks(out), text)
        claim_folder(config, plan, tokenizer, lines)
    lineage = saved_lineage(out, saved if record else None)
    if lineage is None:
        began_with(history.parent)  # as above
    return Place(checkpointer, history, lines, saved, measured, lineage, scored, finished)


def _parent(init: str | None, config: RunConfig, sha256: str) -> dict[str, Any] | None:
    return parent_of(init, config, sha256) if init else None


def _check_past(out: str, history: History, notes: list[str]) -> None:
    """Raises `Damaged` for a branch without a checkpoint, which would begin with random weights.

    Args:
      notes: what was found in its folder of checkpoints.
    """
    if branch := history.branch:
        place = f"{branch['run']}@{branch['step']}"
        left = (
            f"The run in {out} is a branch of {place}, and no undamaged checkpoint of it is left: "
            f"restore one from a copy, or delete the folder and give --branch {place} again."
        )
        raise Damaged(" ".join([*notes, left]))


def _check_parent(out: str, history: History, init: str) -> None:
    """Raises `ConfigError` unless the run began with the weights of `init`."""
    folder, step = folder_and_step(init)
    parent = history.parent
    if parent is None or parent["run"] != str(folder) or step not in (None, parent["step"]):
        began = f"{parent['run']}, step {parent['step']}" if parent else "random weights"
        raise ConfigError(
            f"--init is {init!r}, but the run in {out} already began with {began}: leave "
            "the flag out to resume it, or choose another `out`."
        )


def measured_before(out: Path, step: int) -> dict[str, Any] | None:
    """What an earlier start measured after `step`: held-out `loss`, `bits_per_byte` and `figures`,
    and the last `train_loss`. None, in all processes, if it measured nothing."""
    records = list(read_metrics(out / METRICS_FILE))
    here = [r for r in records if r["split"] == "validation" and r["step"] == step]
    trained = [r["loss"] for r in records if r["split"] == "train"]
    if not multihost_utils.broadcast_one_to_all(np.bool_(bool(here))):
        return None
    names = ("loss", "bits_per_byte")  # the second of text alone
    found = {name: here[-1][name] for name in names if name in here[-1]} if here else {}
    found |= {"figures": own_figures(here[-1])} if here else {}
    return found | ({"train_loss": trained[-1]} if trained else {})
