"""How scores on tasks grow with compute, over a ladder of runs or the checkpoints of one run.

Accuracy and exact match leap where the probability of the answer grows smoothly (Schaeffer et al.
2023, on Wei et al. 2022). So each task is told by both kinds of figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm_jax.config import RunConfig, UserError, generative_of, read_config
from llm_jax.config.wording import counted
from llm_jax.facts.recurrent_counts import sizes_of
from llm_jax.facts.train_flops import train_flops
from llm_jax.laws.run_curves import records
from llm_jax.report.emergence_forecast import CONTINUOUS, TASK_LOSS, Point, forecast_of
from llm_jax.report.task_versions import of_one_version
from llm_jax.runs.history import read_history
from llm_jax.runs.metric_names import COUNT, SHOTS, STDERR
from llm_jax.runs.scores import Scores, kept_scores, kept_steps, outdated

INTERVALS = (
    "The 90% intervals of forecasts cover the errors of the measured figures, the scatter of the "
    "smaller models about the curves and, where the loss is forecast, the law's; they do not cover "
    "a wrong form of the curve. If the line, the sigmoid or the law bends beyond the smaller "
    "models, the truth can lie far outside."
)
"""What a reader of a forecast must know."""


def runs_in(folder: Path) -> tuple[list[Path], bool]:
    """The run folders at `folder`, and whether it is a folder of runs, a ladder.

    Raises:
      UserError: there is no run.
    """
    if (folder / "run.json").is_file():
        return [folder], False
    runs = sorted(file.parent for file in folder.glob("*/run.json"))
    if not runs:
        raise UserError(
            f"There is no run in {str(folder)!r}, and no folder with one: give the `out` folder of "
            "a run, or the folder of a ladder."
        )
    return runs, True


def point_of(run: Path, step: int) -> Point:
    """The checkpoint `step` of the run in `run`.

    Raises:
      UserError: its FLOPs are not known, or a file of the run is damaged.
    """
    config = read_config(run / "run.json", RunConfig)
    model, flops = generative_of(config.model, "Emergence"), train_flops(config)
    if flops is None:
        raise UserError(
            f"The run in {str(run)!r} has a model of its own kind ({model.kind}), whose FLOPs are "
            "not known: leave it out."
        )
    file = run / "metrics.jsonl"
    losses = records(file, "validation") if file.is_file() else []
    history = read_history(run, config)
    tokens, parent = history.tokens(step), history.parent
    return Point(
        name=f"{run.name}@{step}",
        run=str(run),
        step=step,
        params=int(sizes_of(model)["all"]),
        tokens=tokens,
        flops=flops * tokens,
        loss=next((one["loss"] for one in reversed(losses) if one["step"] == step), None),
        began_with=None if parent is None else str(parent["run"]),
    )


def emergence(
    folder: Path, tasks: Sequence[str], asked: Callable[[Scores], bool] = lambda one: True
) -> dict[str, Any]:
    """The scores that are kept at `folder`, by compute, and a forecast of the largest model.

    Args:
      folder: a run, or a folder of runs, of each of which the newest scored checkpoint counts.
      tasks: which tasks; empty: all that were scored.
      asked: which scores of them; of several, the newest count.

    Returns:
      `points`, from the smallest compute to the largest; `tasks`: name → shots → figures of each
      point, the forecast, or why there is none; `versions` of the tasks, null where none is known;
      `intervals`, what those of forecasts do not cover; `notes`.

    Raises:
      UserError: nothing was scored.
    """
    runs, ladder = runs_in(folder)
    kept = {run: kept_steps(run) for run in runs}
    places = [
        (run, step) for run, steps in kept.items() for step in (steps[-1:] if ladder else steps)
    ]
    every = sorted((point_of(*place) for place in places), key=lambda one: one.flops)
    points = [one for one in every if one.tokens]
    unread = [
        f"{one.name} has read no tokens here, so what it has cost is not known: it is left out."
        for one in every
        if not one.tokens
    ]
    if unread and not points:
        raise UserError(unread[0])
    found = [kept_scores(Path(one.run), one.step) for one in points]
    scored = [[one for one in each if not one.chat and asked(one)] for each in found]
    names = dict.fromkeys(one.task for each in scored for one in each)
    missing = [task for task in tasks if task not in names]
    if not names or missing:
        what = f"task {missing[0]!r}" if missing else "a task"
        raise UserError(
            f"No checkpoint at {str(folder)!r} was scored on {what}: name it with --tasks."
        )
    notes = [f"{run} has no scores: it is left out." for run, steps in kept.items() if not steps]
    notes += unread
    notes += [
        f"{one.name} began with the weights of {one.began_with}, whose FLOPs are not counted: it "
        "stands too far to the left."
        for one in points
        if one.began_with
    ]
    notes += [
        f"{point.name}: scores of other parameters than the checkpoint has now are left out; name "
        "--tasks to score it anew."
        for point in points
        if outdated(Path(point.run), point.step)
    ]
    if any(one.chat for each in found for one in each):
        notes.append("Scores that were asked through a chat template are left out.")
    if not ladder:
        notes.append(
            "These are checkpoints of one run. Those before the end of a decaying learning rate "
            "are worse than a run that ends there: growth along a run looks steeper than it is."
        )
    chosen = list(tasks) or [*names]
    scored, versions, left_out = of_one_version([one.name for one in points], scored, chosen)
    notes += left_out
    return {
        "folder": str(folder),
        "ladder": ladder,
        "points": [asdict(one) for one in points],
        "tasks": {task: _task(task, points, scored, notes) for task in chosen},
        "versions": versions,
        "intervals": INTERVALS,
        "notes": notes,
    }


def _task(
    task: str, points: list[Point], scored: list[list[Scores]], notes: list[str]
) -> dict[str, Any]:
    """What is known of one task, by the number of examples shown."""
    rows = [{_shown(one): one for one in found if one.task == task} for found in scored]
    shots = sorted({shot for row in rows for shot in row}, key=lambda s: -1 if s is None else s)
    for found in scored:
        if len({(one.limit, one.seed) for one in found if one.task == task}) > 1:
            notes.append(f"{task} was scored with different limits or seeds: the newest scores "
                         "count.")  # fmt: skip
            break
    made = {}
    for shot in shots:
        figures = [row[shot].figures if shot in row else None for row in rows]
        sizes = {int(one[COUNT]) for one in figures if one is not None and COUNT in one}
        if len(sizes) > 1:
            notes.append(
                f"{task}, {shots_in_words(_shots_key(shot))}: some models were scored on "
                f"{min(sizes):,} examples and others on up to {max(sizes):,}, so their figures "
                "differ by the questions too. Score all with one --limit."
            )
        name = next(_first(one) for one in figures if one is not None)
        if any(one is not None and name not in one for one in figures):
            notes.append(f"{task}: models that were scored without {name} are left out.")
            figures = [one if one is not None and name in one else None for one in figures]
        made[_shots_key(shot)] = {
            "accuracy": name,
            "continuous": [k for k in CONTINUOUS if any(one and k in one for one in figures)],
            "figures": figures,
            "leaps": _leaps(name, figures),
            **forecast_of(name, points, figures),
        }
    return made


def _shown(one: Scores) -> int | None:
    """The solved examples that were shown: a task may have none, whatever was asked for."""
    return int(one.figures[SHOTS]) if SHOTS in one.figures else one.shots


def _shots_key(shots: int | None) -> str:
    return "as the task says" if shots is None else str(shots)


def _first(figures: dict[str, float]) -> str:
    return next(iter(figures))


def _leaps(name: str, figures: list[dict[str, float] | None]) -> dict[str, float]:
    """Figure → the share of its whole change, from the smallest to the largest model, that its
    largest step between neighbours is; where it changes by more than its error."""
    found = {}
    for key in (name, *CONTINUOUS):
        known = [one for one in figures if one is not None and key in one]
        if len(known) < 3:
            continue
        values = [one[key] for one in known]
        whole, noise = abs(values[-1] - values[0]), known[-1].get(key + STDERR, 0.0)
        if whole > 2 * noise and whole > 0:
            steps = [abs(b - a) for a, b in itertools.pairwise(values)]
            found[key] = min(max(steps) / whole, 1.0)
    return found


def sentences(found: dict[str, Any]) -> list[str]:
    """What a reader should take from the figures, one sentence for each task and kind."""
    lines = []
    models = counted(len(found["points"]), "model")
    for task, by_shots in found["tasks"].items():
        for shots, one in by_shots.items():
            what = f"{task}, {shots_in_words(shots)}"
            leaps = one["leaps"]
            if one["accuracy"] in leaps and TASK_LOSS in leaps:
                lines.append(
                    f"{what}: over {models}, {leaps[one['accuracy']]:.0%} of the whole change of "
                    f"{one['accuracy']} is in its largest step, and {leaps[TASK_LOSS]:.0%} of that "
                    "of the answer's log-probability."
                )
            elif one["accuracy"] not in leaps:
                lines.append(f"{what}: {one['accuracy']} does not change by more than its error.")
    return lines


def shots_in_words(shots: str) -> str:
    """The number of solved examples before each question, in words."""
    return {"0": "zero-shot", "1": "one-shot"}.get(
        shots, f"{shots}-shot" if shots.isdigit() else f"examples {shots}"
    )
