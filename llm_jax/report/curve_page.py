"""What a range of budgets buys, as a self-contained HTML page with the loss against the budget."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from llm_jax.report.cost_rows import price_text
from llm_jax.report.curve_table import HEAD, budget_text, curve_rows, notes
from llm_jax.report.html import box, document, figure, head, section, table
from llm_jax.report.svg import ACCENT, BAND, INK, WHITE, log_ticks, svg

AXIS = {
    "usd": "US dollars",
    "flops": "training FLOPs",
    "chip-hours": "chip-hours",
    "hours": "hours of wall time",
}
TITLE = "What a budget buys"
SIZE = (9.0, 4.2)
"""Inches: the chart stands alone in its row."""


def page(found: dict[str, Any]) -> str:
    """The page of a curve; `found` is its JSON object."""
    told = [point for point in found["curve"] if not point["refused"] and point["loss"]]
    line = f"{found['chip']} ({price_text(found)}) · {found['law']['name']}"
    sections = [
        head(TITLE, line, _tiles(found["unit"], told)),
        box("warn", "Know before you spend", notes(found)),
        section("Loss against the budget", _drawing(found["unit"], told)) if told[1:] else "",
        section("Each budget's run", table(curve_rows(found), HEAD)),
    ]
    return document(TITLE, sections)


def _tiles(unit: str, points: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(budget, loss, 90% interval) of the smallest and the largest budget."""
    ends = [points[0], points[-1]] if points[1:] else points
    return [
        (
            budget_text(unit, point["budget"]),
            f"{point['loss']:.3f}",
            "nats/token, 90%: {:.3f} to {:.3f}".format(*point["loss_interval"]),
        )
        for point in ends
    ]


def _drawing(unit: str, points: list[dict[str, Any]]) -> str:
    first, last = points[0], points[-1]
    label = (
        f"Predicted loss against {AXIS[unit]}, with its 90% interval: from {first['loss']:.3f} to "
        f"{last['loss']:.3f} nats per token."
    )
    return figure(
        svg(lambda axes: _losses(axes, unit, points), label, SIZE),
        "Predicted loss of the best run for each budget, with its 90% interval. Each point is a "
        "whole plan: model, data, machine and mesh.",
    )


def _losses(axes: Axes, unit: str, points: list[dict[str, Any]]) -> None:
    budgets = [point["budget"] for point in points]
    low, high = zip(*(point["loss_interval"] for point in points), strict=True)
    axes.fill_between(budgets, low, high, color=BAND, lw=0, label="90% interval")
    axes.plot(budgets, [point["loss"] for point in points], color=INK, lw=1.6, marker="o",
              mfc=ACCENT, mec=WHITE, ms=8, label="predicted")  # fmt: skip
    axes.set(xscale="log", xlabel=AXIS[unit], ylabel="loss (nats/token)")
    log_ticks(axes.xaxis)
    axes.legend()
