"""What a range of budgets buys, as a self-contained HTML page with the loss against the budget."""

from __future__ import annotations

import io
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from llm_jax.report.charts import ACCENT, BAND, INK, STYLE
from llm_jax.report.curve_table import HEAD, curve_rows, notes
from llm_jax.report.html import document, figure, listing, section, table

AXIS = {
    "usd": "US dollars",
    "flops": "training FLOPs",
    "chip-hours": "chip-hours",
    "hours": "hours of wall time",
}


def page(found: dict[str, Any]) -> str:
    """The page of a curve; `found` is its JSON object."""
    known = notes(found)
    told = [point for point in found["curve"] if not point["refused"] and point["loss"]]
    machine = f"{found['chip']}, {found['law']['name']}"
    sections = [
        f"<header><h1>What a budget buys</h1><p class=soft>{escape(machine)}</p></header>",
        f'<div class="warn"><h3>Know before you spend</h3>{listing(known)}</div>' if known else "",
        section("Loss against the budget", figure(_drawing(found["unit"], told), _caption()))
        if len(told) > 1
        else "",
        section("Each budget's run", table(curve_rows(found), HEAD)),
    ]
    return document("What a budget buys", sections)


def _caption() -> str:
    return (
        "Predicted loss of the best run for each budget, with its 90% interval. Each point is a "
        "whole plan: model, data, machine and mesh."
    )


def _drawing(unit: str, points: list[dict[str, Any]]) -> str:
    """The chart as an <svg> element."""
    with rc_context(STYLE):
        drawn = Figure(figsize=(8.4, 4.2), layout="constrained")
        canvas = FigureCanvasSVG(drawn)
        _losses(drawn.subplots(), unit, points)
        out = io.StringIO()
        canvas.print_svg(out, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _losses(axes: Axes, unit: str, points: list[dict[str, Any]]) -> None:
    budgets = [point["budget"] for point in points]
    low, high = zip(*(point["loss_interval"] for point in points), strict=True)
    axes.fill_between(budgets, low, high, color=BAND, lw=0, label="90% interval")
    axes.plot(budgets, [point["loss"] for point in points], color=INK, lw=1.6, marker="o",
              mfc=ACCENT, mec="white", ms=8, label="predicted")  # fmt: skip
    axes.set(xscale="log", xlabel=AXIS[unit], ylabel="loss (nats/token)")
    axes.legend(fontsize=8, framealpha=0.9)
