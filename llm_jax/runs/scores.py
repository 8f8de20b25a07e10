"""Scores of a run on tasks: those that the run recorded on its way, and those that were kept later.

`<run>/scores/STEP.json` has what `eval --tasks` with `--keep`, `--all-steps` or `--follow`, and
`emergence`, scored on the checkpoint of that step. What the run itself scored is in its metrics.

Each score has the version of its task: those of two versions answer different questions, so they
are not put beside each other, and what is left out is said.

A run that goes back may save other parameters at a step that it has reached before. Scores of
parameters that the checkpoint no longer has do not count.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.config.wording import counted
from llm_jax.runs.files import write_text
from llm_jax.runs.metric_names import STDERR, TASK, VERSION

FOLDER = "scores"
PATIENCE = 10.0
"""Seconds after which a lock counts as left behind: a write takes milliseconds."""
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
    version: str | None = None
    """Of the task; None: its file says none, or the score was kept before versions were."""
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
            "version": (str,),
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
    is replaced, by one of another version of the task too. Figures that are not finite numbers are
    left out; if the first one is not, all of that task.

    Returns:
      A sentence for each score that is not kept whole, for each that is replaced by one of another
      version of its task, and one if others are dropped because the checkpoint has other parameters
      now.

    Raises:
      UserError: the file that is there is damaged.
      OSError: it cannot be written.
    """
    with _alone(scores_file(run, step)):
        return _keep(run, step, scores)


def _keep(run: Path, step: int, scores: Iterable[Scores]) -> list[str]:
    held, notes = {one.asked: one for one in kept_scores(run, step)}, list[str]()
    if old := outdated(run, step):
        notes.append(
            f"{run.name} at step {step:,}: dropped {counted(old, 'kept score')} of other "
            "parameters than the checkpoint has now."
        )
    for one in scores:
        before = held.pop(one.asked, None)
        if before is not None and before.version != one.version:
            notes.append(
                f"{one.task}: kept scores of {version_in_words(before.version)} of the task are "
                f"replaced by those of {version_in_words(one.version)}."
            )
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


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Two processes may score one checkpoint on different tasks: each adds to what the other has
    written. A lock that stays belongs to a process that was killed while it wrote."""
    lock = file.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if time.monotonic() > until:
                break
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


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


def version_in_words(version: str | None) -> str:
    """The version of a task, inside a sentence."""
    return "an unknown version" if version is None else f"version {version}"


def of_last_version(
    records: Iterable[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """What a run recorded, without the figures of tasks that later had another version.

    Returns:
      The records, and a sentence for each task of which figures are left out.
    """
    records, notes = list(records), list[str]()
    scored = [one for one in records if one.get("split") == TASK]
    versions, lost = dict[str, str | None](), dict[str, dict[str | None, int]]()
    for one in scored:
        versions |= {task: one.get(f"{task}/{VERSION}") for task in _tasks_of(one)}
    for one in scored:
        for task in _tasks_of(one):
            version = one.get(f"{task}/{VERSION}")
            if version != versions[task]:
                lost.setdefault(task, {})[version] = one["step"]
    for task, steps in lost.items():
        for version, step in steps.items():
            notes.append(
                f"{task}: scores up to step {step:,} are of {version_in_words(version)} of the "
                f"task, the last ones of {version_in_words(versions[task])}: the earlier ones are "
                "left out of curves and tables."
            )
    return [_without_others(one, versions) for one in records], notes


def _tasks_of(record: dict[str, Any]) -> list[str]:
    return [name.rpartition("/")[0] for name in first_figures(figures_of(record))]


def _without_others(record: dict[str, Any], versions: dict[str, str | None]) -> dict[str, Any]:
    """A record without the figures of tasks that have another version."""
    if record.get("split") != TASK:
        return record
    other = {
        task for task in _tasks_of(record) if record.get(f"{task}/{VERSION}") != versions[task]
    }
    return {k: v for k, v in record.items() if k.rpartition("/")[0] not in other}


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


def scores_in_words(figures: dict[str, float]) -> str:
    """The first figure of each task, with its standard error."""
    words = list[str]()
    last = ""
    for name, value in figures.items():
        task, _, figure = name.rpartition("/")
        if task != last:
            error = figures.get(name + STDERR)
            within = "" if error is None else f" ± {error:.3f}"
            words.append(f"{task} {figure} {value:.4g}{within}")
        last = task
    return ", ".join(words) or "no scores"


def score_curves(records: Iterable[dict[str, Any]]) -> dict[str, Curve]:
    """`TASK/FIGURE` → (tokens, value) of the first figure of each task, if all its values lie
    between 0 and 1. Only those of a task's last version count."""
    records, _ = of_last_version(records)
    read = {one["step"]: one.get("tokens", 0) for one in records if "step" in one}
    scored = recorded_scores(records)
    names = dict.fromkeys(name for one in scored.values() for name in first_figures(one))
    curves = {
        name: [(read[step], one[name]) for step, one in scored.items() if name in one]
        for name in names
    }
    return {k: c for k, c in curves.items() if all(0 <= value <= 1 for _, value in c)}
