"""The charts of a curation's page."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.ticker import FuncFormatter

from llm_jax.data.curate.histogram import edges
from llm_jax.report.amounts import BYTES, in_units
from llm_jax.report.svg import ACCENT, BAND, BLUE, FAINT, INK, ORANGE, PAPER, SOFT

COLOURS = (BLUE, ORANGE, FAINT, ACCENT, BAND, SOFT)
"""Of the largest sources or languages; the last is of all others."""
BAR = 0.28
"""Width of a bar, where steps are 1 apart."""
LEAST_CHANGE = 0.04
"""Share of all bytes that a step must take for its bar to have a number."""


def flow(axes: Axes, info: dict[str, Any], part: int) -> None:
    """What is left after each step, in bytes, as bands that become thinner.

    Args:
      part: 0 by source, 1 by language.
    """
    stages = _stages(info["tally"], part)
    largest = sorted(stages[0], key=lambda name: -stages[0][name])
    shown = largest if len(largest) <= len(COLOURS) else largest[: len(COLOURS) - 1]
    bottoms, bars, labels = [0.0] * len(stages), list[BarContainer](), list[str]()
    for name, colour in zip([*shown, None], COLOURS, strict=False):
        names = [name] if name is not None else [one for one in largest if one not in shown]
        if not names:
            continue
        heights = [sum(stage.get(one, 0.0) for one in names) for stage in stages]
        tops = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
        places = [x + side for x in range(len(stages)) for side in (-BAR / 2, BAR / 2)]
        low, high = ([value for value in held for _ in range(2)] for held in (bottoms, tops))
        axes.fill_between(places, low, high, color=colour, alpha=0.35, lw=0)
        bars.append(axes.bar(range(len(stages)), heights, BAR, bottoms, color=colour))
        labels.append(_cut(name) if name is not None else f"{len(names)} others")
        bottoms = tops
    written = math.inf
    for x, top in enumerate(bottoms):
        if abs(written - top) > LEAST_CHANGE * bottoms[0]:  # else the numbers would overlap
            text = in_units(top, BYTES)
            axes.text(x, top, text, ha="center", va="bottom", fontsize=7, color=INK)
            written = top
    names = ["in", *info["tally"]["steps"]]
    axes.set_xticks(range(len(stages)), names, rotation=40, ha="right", fontsize=8)
    axes.set(xlim=(-0.8, len(stages) - 0.5), ylim=(0, 1.1 * max(bottoms[0], 1)), ylabel="bytes")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_units(value, BYTES)))
    # Named here, since an artist whose own label begins with _ is not shown.
    axes.legend(bars, labels, loc="upper right", fontsize=8)


def _cut(name: str) -> str:
    """The end of a long name, which tells paths apart."""
    return _literal(name if len(name) <= 32 else f"…{name[-31:]}")


def _literal(text: str) -> str:
    """`text` as Matplotlib draws it letter by letter: what is between two $ would be a formula."""
    return text.replace("$", r"\$")


def _stages(tally: dict[str, Any], part: int) -> list[dict[str, float]]:
    """Name → bytes, of what comes in and of what each step leaves."""
    left: defaultdict[str, float] = defaultdict(float)
    for key, amount in tally["arrived"].items():
        left[key.rsplit("\t", 1)[part]] += amount[1]
    stages = [dict(left)]
    for step in tally["steps"].values():
        for taken in (step["dropped"], step["trimmed"]):
            for key, amount in taken.items():
                left[key.rsplit("\t", 1)[part]] -= amount[1]
        stages.append({name: max(value, 0.0) for name, value in left.items()})
    return stages


def histogram(axes: Axes, name: str, held: dict[str, Any]) -> None:
    """Documents by a check's value, kept and dropped, with the threshold drawn.

    Args:
      held: bounds, and bin → [documents that passed, dropped].
    """
    low, high = held["low"], held["high"]
    at = edges(low, high)
    first, last = at[0] - (at[1] - at[0]), at[-1] + (at[-1] - at[-2])
    log = low and high and high / low > 20 and at[0] > 0
    if log:
        first, last = at[0] ** 2 / at[1], at[-1] ** 2 / at[-2]
    places = [first, *at, last]
    numbers = sorted(int(number) for number in held["counts"])
    for number in numbers:
        kept, dropped = held["counts"][str(number)]
        start, width = places[number], places[number + 1] - places[number]
        axes.bar(start, kept, width, align="edge", color=BLUE, edgecolor=PAPER, lw=0.5)
        axes.bar(start, dropped, width, kept, align="edge", color=ORANGE, edgecolor=PAPER, lw=0.5)
    for bound in (low, high):
        if bound is not None:
            axes.axvline(bound or 0.5, color=ACCENT, lw=1.5, ls="--")
    axes.bar([places[0]], [0], 0, color=BLUE, label="kept")
    axes.bar([places[0]], [0], 0, color=ORANGE, label="dropped")
    axes.plot([], [], color=ACCENT, lw=1.5, ls="--", label="threshold")
    shown = [bound for bound in (low, high) if bound is not None]
    left = min([places[numbers[0]], *shown]) if numbers else first
    right = max([places[numbers[-1] + 1], *shown]) if numbers else last
    margin = 0.03 * (right - left) or 0.5
    axes.set(xlabel=_literal(name), ylabel="documents")
    axes.set_xlim(*((left * 0.9, right * 1.1) if log else (left - margin, right + margin)))
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if log:
        axes.set_xscale("log")
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3, frameon=False)
