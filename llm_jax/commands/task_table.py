"""The results of `eval --tasks` as tables of at most 80 columns: of one or several checkpoints."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping
from typing import Any

from llm_jax.evals.tasks.results import interval
from llm_jax.runs.metric_names import CHANCE, COUNT, EXAMPLES, STDERR

WIDTH = 80
HEAD = ("task", "shots", "metric", "value ± stderr", "chance", "n")
COURSE = ("task", "metric", "step", "value ± stderr", "95% interval", "chance", "n")
NUMBERS = {"shots", "step", "value ± stderr", "95% interval", "chance", "n"}
"""Columns of numbers, which stand at the right."""
GAP = 2
FLAWS = {
    "truncated": "requests were longer than the model's context: cut on the left",
    "shortened": "answers had at most half of the model's context",
    "joined": "answers share their first token with the end of their question: without it, what is "
    "scored is not quite the answer (as in lm-eval)",
    "unlabelled": "questions have no right answer among their choices: they count as wrong",
}
"""What a reader must know of a task, by its name in the results."""
WAYS = {True: " ↑", False: " ↓", None: ""}


def text_lines(results: dict[str, Any]) -> list[str]:
    """The results for a person: a row for each figure, what was cut, and which figures are better
    than a guess."""
    both = [(name, one) for kind in ("groups", "tasks") for name, one in results[kind].items()]
    rows = [row for name, one in both for row in _rows(name, one)]
    lines = [*_table(HEAD, rows), "± one standard error; ↑ higher is better, ↓ lower is better"]
    lines += version_lines({name: one["version"] for name, one in both})
    better = {name: _better(one) for name, one in both}
    known = [name for name, one in both if _knows_chance(one)]
    for name in known:
        which = ", ".join(better[name]) or "none"
        lines += _wrapped(f"{name}, better than chance (the 95% interval excludes it): {which}")
    return lines + [line for name, one in both for line in _flaw_lines(name, one)]


def course_lines(checkpoints: list[dict[str, Any]], versions: dict[str, str | None]) -> list[str]:
    """The first figure of each task on several checkpoints for a person: a row for each step.

    Args:
      checkpoints: of each its `step`, and `scores`: task → figures as they are kept.
    """
    by_task: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for one in checkpoints:
        for task, figures in one["scores"].items():
            by_task.setdefault(task, []).append((one["step"], figures))
    if not by_task:
        return []
    rows = []
    for task, scored in by_task.items():
        last = ("", "")
        for step, figures in scored:
            name = next(iter(figures))
            named = [new if new != old else "" for new, old in zip((task, name), last, strict=True)]
            rows.append([*named, f"{step:,}", *_of_figures(name, figures)])
            last = task, name
    lines = [*_table(COURSE, rows), "± one standard error; all figures: --json"]
    lines += version_lines(versions)
    for task, scored in by_task.items():
        lines += _flaw_lines(task, scored[-1][1])
    return lines


def _of_figures(name: str, figures: Mapping[str, float]) -> list[str]:
    """Value, interval, chance and number of examples of a figure as it is kept."""
    value, error = figures[name], figures.get(name + STDERR)
    n, chance = figures.get(name + EXAMPLES, figures.get(COUNT)), figures.get(CHANCE)
    ends = None if n is None else interval(value, error, int(n), share=True)
    return [
        _value({"value": value, "stderr": error}),
        "" if ends is None else " to ".join(f"{end:.3g}" for end in ends),
        "" if chance is None else f"{chance:.3g}",
        "" if n is None else f"{n:,.0f}",
    ]


def version_lines(versions: Mapping[str, str | None]) -> list[str]:
    """The versions of tasks whose files say one."""
    known = [f"{name} {version}" for name, version in versions.items() if version is not None]
    return _wrapped(f"versions: {', '.join(known)}") if known else []


def _flaw_lines(name: str, one: Mapping[str, Any]) -> list[str]:
    """What a reader must know of a task."""
    lines = []
    for flaw, sentence in FLAWS.items():
        if one.get(flaw):
            lines += _wrapped(f"{name}: {one[flaw]:,.0f} {sentence}")
    return lines


def _better(one: dict[str, Any]) -> list[str]:
    return [name for name, figure in one["metrics"].items() if figure["above_chance"]]


def _knows_chance(one: dict[str, Any]) -> bool:
    return any(figure["above_chance"] is not None for figure in one["metrics"].values())


def _rows(name: str, one: dict[str, Any]) -> list[list[str]]:
    """The rows of a task; its name and its shots stand in the first."""
    rows = []
    for metric, figure in one["metrics"].items():
        chance = "" if figure["chance"] is None else f"{figure['chance']:.3g}"
        way = WAYS[figure["higher_is_better"]]
        rows.append(["", "", metric + way, _value(figure), chance, f"{figure['n']:,}"])
    if rows:
        shots = "" if one["few_shot"] is None else str(one["few_shot"])
        rows[0][:2] = [name, shots]
        if one["n"] < one["of"]:
            rows[0][5] += f" of {one['of']:,}"
    return rows


def _value(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "not a finite number"
    error = figure["stderr"]
    return f"{figure['value']:.4g}" + ("" if error is None else f" ± {error:.2g}")


def _table(head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    """Lines of the rows under their head. A name that does not fit beside its figures has a line
    of its own."""
    wide = [max(map(width, column)) for column in zip(head, *rows, strict=True)]
    room = max(WIDTH - sum(wide[1:]) - GAP * (len(head) - 1), width(head[0]))
    wide[0] = min(wide[0], room)
    right = [name in NUMBERS for name in head]
    lines = [_line(list(head), wide, right)]
    for row in rows:
        if width(row[0]) > wide[0]:
            lines.append(row[0])
            row = ["", *row[1:]]
        lines.append(_line(row, wide, right))
    return lines


def _line(cells: list[str], wide: list[int], right: list[bool]) -> str:
    padded = []
    for cell, most, at_right in zip(cells, wide, right, strict=True):
        space = " " * (most - width(cell))
        padded.append(space + cell if at_right else cell + space)
    return (" " * GAP).join(padded).rstrip()


def width(text: str) -> int:
    """Columns of a text on a terminal: letters of East Asia take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, WIDTH, subsequent_indent="  ")
