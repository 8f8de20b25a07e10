"""The results of `eval --tasks` as a table of at most 80 columns."""

from __future__ import annotations

import textwrap
import unicodedata
from typing import Any

WIDTH = 80
HEAD = ("task", "shots", "metric", "value ± stderr", "chance", "n")
RIGHT = (1, 3, 4, 5)
"""Columns of numbers."""
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
    lines = [*_table(rows), "± one standard error; ↑ higher is better, ↓ lower is better"]
    better = {name: _better(one) for name, one in both}
    known = [name for name, one in both if _knows_chance(one)]
    for name in known:
        which = ", ".join(better[name]) or "none"
        lines += _wrapped(f"{name}, better than chance (the 95% interval excludes it): {which}")
    for name, one in both:
        for flaw, sentence in FLAWS.items():
            if one[flaw]:
                lines += _wrapped(f"{name}: {one[flaw]:,} {sentence}")
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


def _table(rows: list[list[str]]) -> list[str]:
    """Lines of the rows under their head. A name that does not fit beside its figures has a line
    of its own."""
    wide = [max(map(width, column)) for column in zip(HEAD, *rows, strict=True)]
    room = max(WIDTH - sum(wide[1:]) - GAP * (len(HEAD) - 1), width(HEAD[0]))
    wide[0] = min(wide[0], room)
    lines = [_line(list(HEAD), wide)]
    for row in rows:
        if width(row[0]) > wide[0]:
            lines.append(row[0])
            row = ["", *row[1:]]
        lines.append(_line(row, wide))
    return lines


def _line(cells: list[str], wide: list[int]) -> str:
    padded = []
    for place, (cell, most) in enumerate(zip(cells, wide, strict=True)):
        space = " " * (most - width(cell))
        padded.append(space + cell if place in RIGHT else cell + space)
    return (" " * GAP).join(padded).rstrip()


def width(text: str) -> int:
    """Columns of a text on a terminal: letters of East Asia take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, WIDTH, subsequent_indent="  ")
