"""Determines whether a start begins a run, resumes it, or finds it finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jax.experimental import multihost_utils

from llm_jax.config import ConfigError, RunConfig, from_dict
from llm_jax.data.dataset import TokenDataset
from llm_jax.runs.history import Entry, History, beginning, read_history
from llm_jax.runs.plan_file import PlanRecord
from llm_jax.train.changes import check_standing, resume
from llm_jax.train.checkpoint import Checkpointer
from llm_jax.train.feed import training_text
from llm_jax.train.inherit import folder_and_step, parent_of
from llm_jax.train.metrics import METRICS_FILE, read_metrics
from llm_jax.train.run_folder import check_folder, claim_folder
from llm_jax.train.state import State


@dataclass(frozen=True)
class Place:
    checkpointer: Checkpointer
    history: History
    lines: list[Entry]
    """The history's new lines."""
    saved: int | None
    """Checkpoint that the run resumes from; None if it is new."""
    measured: dict[str, float] | None
    """What was measured there (see `measured_before`)."""
    finished: bool
    """All steps are done and evaluated. Then nothing is written."""

    @property
    def step(self) -> int:
        return self.saved or 0


def find_place(
    config: RunConfig,
    plan: PlanRecord | None,
    dataset: TokenDataset,
    abstract: State,
    init_from: str | None,
) -> Place:
    """Opens the run in `config.out`, or creates the folder of a new one.

    Args:
      plan: the prediction for `config`.
      abstract: the state to restore a checkpoint to.
      init_from: run, or checkpoint of a run, whose weights a new run begins with.

    Raises:
      ConfigError: the folder, or `init_from`, does not match `config`.
    """
    out, text = Path(config.out), training_text(dataset)
    tokenizer = dataset.tokenizer
    old = check_folder(config, tokenizer)
    if old is None:
        history = beginning(config, text, _parent(config, init_from, dataset))
        lines = [*history.entries]
        claim_folder(config, plan, tokenizer, lines)
        return Place(_open(config, dataset), history, lines, None, None, False)
    checkpointer = _open(config, dataset)
    saved = checkpointer.newest(abstract)
    if saved is None:
        parent = _parent(config, init_from, dataset) or read_history(out, old).parent
        history = beginning(config, text, parent)
        lines = [*history.entries]
        claim_folder(config, plan, tokenizer, lines)
        return Place(checkpointer, history, lines, None, None, False)
    measured = measured_before(out, saved)
    record = checkpointer.record(saved)
    was = from_dict(record["config"], RunConfig) if record else old
    history, lines = resume(config, was, text, saved)
    check_standing(config.out, history, saved, record)
    if init_from:
        _check_parent(config.out, history, init_from)
    finished = measured is not None and saved >= max(old.steps, config.steps)
    if not finished:
        claim_folder(config, plan, tokenizer, lines)
    return Place(checkpointer, history, lines, saved, measured, finished)


def _open(config: RunConfig, dataset: TokenDataset) -> Checkpointer:
    return Checkpointer.open(config, dataset.tokenizer.sha256)


def _parent(config: RunConfig, init_from: str | None, dataset: TokenDataset) -> dict | None:
    return parent_of(init_from, config, dataset.tokenizer.sha256) if init_from else None


def _check_parent(out: str, history: History, init_from: str) -> None:
    """Raises `ConfigError` unless the run began with the weights of `init_from`."""
    folder, _ = folder_and_step(init_from)
    if history.parent is None or history.parent["run"] != str(folder):
        began = history.parent["run"] if history.parent else "random weights"
        raise ConfigError(
            f"--init-from is {init_from!r}, but the run in {out} already began with {began}: leave "
            "the flag out to resume it, or choose another `out`."
        )


def measured_before(out: Path, step: int) -> dict[str, float] | None:
    """What an earlier start measured after `step`: held-out `loss` and `bits_per_byte`, and the
    last `train_loss`. None, in all processes, if it measured nothing."""
    records = list(read_metrics(out / METRICS_FILE))
    here = [r for r in records if r["split"] == "validation" and r["step"] == step]
    trained = [r["loss"] for r in records if r["split"] == "train"]
    if not multihost_utils.broadcast_one_to_all(np.bool_(bool(here))):
        return None
    found = {name: here[-1][name] for name in ("loss", "bits_per_byte")} if here else {}
    return found | ({"train_loss": trained[-1]} if trained else {})
