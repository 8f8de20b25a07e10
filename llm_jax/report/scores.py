"""The scores of a run on tasks, as a section of its page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from llm_jax.config.wording import counted
from llm_jax.report import run_charts
from llm_jax.report.html import UNKNOWN, box, figure, pair, table
from llm_jax.report.outcome import METRICS
from llm_jax.report.series import Series
from llm_jax.report.svg import svg
from llm_jax.runs.json_lines import read_records
from llm_jax.runs.metric_names import (
    CHANCE,
    COUNT,
    EXAMPLES,
    FAILED,
    SHARE,
    SHOTS,
    STDERR,
    TASK,
    VERSION,
)
from llm_jax.runs.scores import (
    first_figures,
    kept_scores,
    kept_steps,
    of_last_version,
    outdated,
    recorded_scores,
)

HEAD = ["Task", "Version", "Figure", "First step #", "First #", "Last step #", "Last #",
        "± 1 s.e. #", "Chance #", "Examples #"]  # fmt: skip
KEPT = ["Step #", "Task", "Version", "Examples shown #", "Figure", "Value #", "± 1 s.e. #",
        "Chance #", "Examples #"]  # fmt: skip
BESIDE = (STDERR, EXAMPLES, f"/{CHANCE}", f"/{COUNT}", f"/{SHOTS}")
"""Ends of names that say something about a figure or a task, and have no row."""


def scores_section(folder: Path, run: Series) -> str:
    """The scores that the run in `folder` recorded on its way, and those that were kept later.

    Raises:
      UserError: a file of the run is damaged.
    """
    records = [record for _, record in read_records(folder / METRICS)]
    own = [record for record in records if record.get("split") == TASK]
    return _on_its_way(own, run) + _kept(folder)


def _on_its_way(records: list[dict[str, Any]], run: Series) -> str:
    if not records:
        return ""
    records, notes = of_last_version(records)
    versions = {
        name.removesuffix(f"/{VERSION}"): value
        for record in records
        for name, value in record.items()
        if name.endswith(f"/{VERSION}")
    }
    scored = recorded_scores(records)
    names = dict.fromkeys(name for one in scored.values() for name in one)
    firsts, rows = set(first_figures(names)), []
    for name in names:
        if name.endswith(BESIDE):
            continue
        steps = [step for step, one in scored.items() if name in one]
        (first, last), (task, _, what) = (steps[0], steps[-1]), name.rpartition("/")
        newest = scored[last]
        error, count = newest.get(name + STDERR), newest.get(f"{task}/{COUNT}")
        chance = newest.get(f"{task}/{CHANCE}") if name in firsts else None
        count = newest.get(name + EXAMPLES, count)
        rows.append([task, versions.get(task) or UNKNOWN, what, f"{first:,}",
                     f"{scored[first][name]:.4f}", f"{last:,}", f"{newest[name]:.4f}",
                     _shown(error), _shown(chance), _count(count)])  # fmt: skip
    drawn = ""
    if run.scores:
        words = "; ".join(
            f"{name} {run_charts.in_words(curve, '{:.2f}'.format)}"
            for name, curve in run.scores.items()
        )
        chart = svg(partial(run_charts.scores, found={}, run=run), f"Scores on tasks: {words}.")
        drawn = pair(figure(chart, "The first figure of each task, over tokens read."))
    failed = sum(int(one.get(FAILED, 0)) for one in records)
    said = f" Scoring failed {failed:,} time{'s' * (failed != 1)}." if failed else ""
    share = records[-1].get(SHARE, 0.0)
    note = f"<p class='soft'>Scoring took {share:.1%} of the run's time.{said}</p>"
    return drawn + table(rows, HEAD) + box("warn", "Left out", notes) + note


def _kept(folder: Path) -> str:
    rows = []
    for step in kept_steps(folder):
        for one in kept_scores(folder, step):
            shots = UNKNOWN if one.shots is None else f"{one.shots}"
            name, value = next(iter(one.figures.items()), (None, 0.0))
            if name is not None:
                error = one.figures.get(name + STDERR)
                task = f"{one.task} (chat template)" if one.chat else one.task
                row = [f"{step:,}", task, one.version or UNKNOWN, shots, name, f"{value:.4f}"]
                row += [_shown(error), _shown(one.figures.get(CHANCE))]
                rows.append([*row, _count(one.figures.get(COUNT))])
    drawn = table(rows, KEPT) if rows else ""
    if old := sum(outdated(folder, step) for step in kept_steps(folder)):
        drawn += box(
            "warn",
            "Left out",
            [f"{counted(old, 'kept score')} of parameters that their checkpoint no longer has."],
        )
    return drawn


def _count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _shown(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}"
