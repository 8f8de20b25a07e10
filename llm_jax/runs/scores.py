"""Scores of a run on tasks: those that the run recorded on its way, and those that were kept later.

`<run>/scores/STEP.json` has what `eval --tasks` with `--keep`, `--all-steps` or `--follow`, and
`emergence`, scored on the checkpoint of that step. What the run itself scored is in its metrics.

A run that goes back may save other parameters at a step that it has reached before. Scores of
parameters that the checkpoint no longer has do not count.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.runs.files import write_text
from llm_jax.runs.metric_names import STDERR, TASK

FOLDER = "scores"
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Scores:
    """One task on one checkpoint."""

    task: str
    shots: int | None
    """Solved examples before each question as they were asked for; None: as the task says."""
    limit: int | None
    """Most examples that were asked for; None: all."""
    figures: dict[str, float]
    """The most telling first; NAME_stderr is the standard error of NAME."""
    chat: bool = False
    """Whether it was asked through the tokenizer's chat template."""
    seed: int = 0
    """Of the solved examples and of sampled answers."""
    weights: str | None = None
    """`weights_of` the checkpoint when it was scored; None: not known."""

    @property
    def asked(self) -> tuple[str, int | None, int | None, bool, int]:
        """What was asked for: the same question is not asked twice."""
        return self.task, self.shots, self.limit, self.chat, self.seed


SHAPE: dict[str, Any] = {
    "step": int,
    "scores": [
        {
            "task": str,
            "shots": (int,),
            "limit": (int,),
            "figures": {str: float},
            "chat": bool,
            "seed": int,
            "weights": (str,),
        }
    ],
}


def scores_file(run: Path, step: int) -> Path:
    """Where the scores of checkpoint `step` are kept."""
    return run / FOLDER / f"{step}.json"


def weights_of(run: Path, step: int) -> str | None:
    """A digest of the checksums of a checkpoint's parameters; None if there is no checkpoint or it
    has none."""
    try:
        sums = read_json(run / "checkpoints" / str(step) / "manifest.json")
    except UserError:
        return None
    if not isinstance(sums, dict):
        return None
    params = sorted((name, sums[name]) for name in sums if name.startswith("params/"))
    return hashlib.sha256(json.dumps(params).encode()).hexdigest()[:16]


def keep_scores(run: Path, step: int, scores: Iterable[Scores]) -> list[str]:
    """Adds `scores` to those of checkpoint `step`, the newest last; an answer to the same question
    is replaced. Figures that are not finite numbers are left out; if the first one is not, all of
    that task.

    Returns:
      A sentence for each score that is not kept whole, and one if others are dropped because the
      checkpoint has other parameters now.

    Raises:
      UserError: the file that is there is damaged.
      OSError: it cannot be written.
    """
    held, notes = {one.asked: one for one in kept_scores(run, step)}, list[str]()
    if old := outdated(run, step):
        notes.append(
            f"{run.name} at step {step:,}: {old:,} kept scores were of other parameters than the "
            "checkpoint has now, and are dropped."
        )
    for one in scores:
        held.pop(one.asked, None)
        finite = {name: value for name, value in one.figures.items() if math.isfinite(value)}
        if lost := [name for name in one.figures if name not in finite]:
            what = f"{one.task} at step {step:,}: {', '.join(lost)} is not a finite number and"
            notes.append(f"{what} is left out.")
            if lost[0] == next(iter(one.figures)):
                notes[-1] = f"{what} the task's first figure, so it is not kept."
                continue
        held[one.asked] = replace(one, figures=finite)
    content = {"step": step, "scores": [asdict(one) for one in held.values()]}
    write_text(scores_file(run, step), json.dumps(content, indent=1) + "\n")
    return notes


def kept_scores(run: Path, step: int) -> list[Scores]:
    """The scores kept of checkpoint `step`, as far as it still has the parameters that were scored.

    Raises:
      UserError: the file is damaged.
    """
    now = weights_of(run, step)
    return [one for one in _in_file(run, step) if now is None or one.weights in (None, now)]


def outdated(run: Path, step: int) -> int:
    """How many scores in the file are of parameters that checkpoint `step` no longer has."""
    return len(_in_file(run, step)) - len(kept_scores(run, step))


def _in_file(run: Path, step: int) -> list[Scores]:
    file = scores_file(run, step)
    if not file.is_file():
        return []
    held = read_json(file)
    try:
        require_shape(held, SHAPE)
    except UserError as error:
        raise UserError(f"{file} is damaged ({error}): delete it, and score anew.") from None
    return [Scores(**one) for one in held["scores"]]


def kept_steps(run: Path) -> list[int]:
    """Steps of which scores are kept, in order."""
    names = [file.stem for file in (run / FOLDER).glob("*.json")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def recorded_scores(records: Iterable[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Step → `TASK/FIGURE` → value, of what a run recorded. Of several records of a step, after a
    resume, the last counts."""
    return {one["step"]: figures_of(one) for one in records if one.get("split") == TASK}


def figures_of(record: dict[str, Any]) -> dict[str, float]:
    """`TASK/FIGURE` → value of a record with scores; standard errors are among them."""
    return {
        name: float(value)
        for name, value in record.items()
        if "/" in name and isinstance(value, int | float) and math.isfinite(value)
    }


def first_figures(names: Iterable[str]) -> list[str]:
    """The first name of each task: its most telling figure."""
    first = dict[str, str]()
    for name in names:
        if not name.endswith(STDERR):
            first.setdefault(name.rpartition("/")[0], name)
    return list(first.values())


def score_curves(records: Iterable[dict[str, Any]]) -> dict[str, Curve]:
    """`TASK/FIGURE` → (tokens, value) of the first figure of each task, if all its values lie
    between 0 and 1."""
    records = list(records)
    read = {one["step"]: one.get("tokens", 0) for one in records if "step" in one}
    scored = recorded_scores(records)
    names = dict.fromkeys(name for one in scored.values() for name in first_figures(one))
    curves = {
        name: [(read[step], one[name]) for step, one in scored.items() if name in one]
        for name in names
    }
    return {k: c for k, c in curves.items() if all(0 <= value <= 1 for _, value in c)}
