"""Scores of a run on tasks: those that the run recorded on its way, and those that were kept later.

`<run>/scores/STEP.json` has what `eval --tasks` with `--all-steps` or `--follow`, and `emergence`,
scored on the checkpoint of that step. What the run itself scored is in its metrics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
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

    @property
    def asked(self) -> tuple[str, int | None, int | None]:
        """What was asked for: the same question is not asked twice."""
        return self.task, self.shots, self.limit


SHAPE: dict[str, Any] = {
    "step": int,
    "scores": [{"task": str, "shots": (int,), "limit": (int,), "figures": {str: float}}],
}


def keep_scores(run: Path, step: int, scores: Iterable[Scores]) -> Path:
    """Adds `scores` to those of checkpoint `step`; an answer to the same question is replaced.

    Raises:
      UserError: the file that is there is damaged.
      OSError: it cannot be written.
    """
    held = {one.asked: one for one in kept_scores(run, step)}
    held |= {one.asked: one for one in scores}
    file = run / FOLDER / f"{step}.json"
    content = {"step": step, "scores": [asdict(one) for one in held.values()]}
    write_text(file, json.dumps(content, indent=1) + "\n")
    return file


def kept_scores(run: Path, step: int) -> list[Scores]:
    """The scores kept of checkpoint `step`.

    Raises:
      UserError: the file is damaged.
    """
    file = run / FOLDER / f"{step}.json"
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
