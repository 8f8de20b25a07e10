"""What a range of budgets buys, as text for a terminal."""

from __future__ import annotations

from typing import Any

from llm_jax.report.wording import duration, money, short

HEAD = ["Budget #", "Parameters #", "Tokens #", "Loss #", "90% interval #", "Machine", "Time #",
        "Cost #"]  # fmt: skip
"""Headings; those of numbers end with ' #'."""


def budget_text(unit: str, budget: float) -> str:
    """A budget in the unit that the user gave it in."""
    if unit == "usd":
        return f"${short(budget)}"
    if unit == "hours":
        return duration(budget)
    return f"{short(budget)} chip-hours" if unit == "chip-hours" else f"{budget:.2g} FLOPs"


def curve_rows(r: dict[str, Any]) -> list[list[str]]:
    """One row of texts per budget that has a run, in the order of `HEAD`."""
    rows = []
    for point in r["curve"]:
        if point["refused"]:
            continue
        interval = point["loss_interval"]
        rows.append(
            [
                budget_text(r["unit"], point["budget"]),
                short(point["params"]),
                short(point["tokens"]),
                "–" if point["loss"] is None else f"{point['loss']:.3f}",
                f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–",
                point["machine"],
                duration(point["hours"]),
                money(point["usd"]),
            ]
        )
    return rows


def notes(r: dict[str, Any]) -> list[str]:
    """What a reader must know of single points, and of all."""
    found = []
    for point in r["curve"]:
        what = budget_text(r["unit"], point["budget"])
        if point["refused"]:
            found.append(f"{what}: {point['refused']}")
        found += [f"{what}: {limit}" for limit in point.get("limits", [])]
    return [*found, *r["warnings"]]


def curve_table(r: dict[str, Any]) -> str:
    """The curve as lines of text."""
    rows = [[title.removesuffix(" #") for title in HEAD], *curve_rows(r)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = [
        "  ".join(
            cell.rjust(width) if title.endswith("#") else cell.ljust(width)
            for cell, width, title in zip(row, widths, HEAD, strict=True)
        ).rstrip()
        for row in rows
    ]
    lines += ["", f"Law: {r['law']['name']}. Each row is a run of its own; `llm-jax plan` with one "
              "budget gives its config."]  # fmt: skip
    if known := notes(r):
        lines += ["", "Know before you spend:", *(f"  - {text}" for text in known)]
    if "report" in r:
        lines += ["", f"Wrote {r['report']}."]
    return "\n".join(lines)
