"""The same run on several chips, side by side, as a table and as bars."""

from __future__ import annotations

from html import escape
from typing import Any

from llm_jax.report.amounts import ENERGY, digits, in_units, span
from llm_jax.report.cost_rows import price_text
from llm_jax.report.html import UNKNOWN, bars, figure, listing, pair, table
from llm_jax.report.plan_table import duration, money

HEAD = ["Machine", "Chips #", "Time #", "90% interval #", "Cost #", "MFU #", "Chip-hours #",
        "Energy #", "Limited by"]  # fmt: skip


def side_by_side(rows: list[dict[str, Any]]) -> str:
    """The rows of `compare.compared`: the cheapest is highlighted, and what is refused is said."""
    held = [row for row in rows if not row["refused"]]
    refused = [f"{row['chip']}: {row['refused']}" for row in rows if row["refused"]]
    best = next((i for i, row in enumerate(held) if row["cheapest"]), None)
    pictures = pair(
        _bars(held, "usd", money, "Cost of training."),
        _bars(held, "hours", duration, "Expected time, with restarts."),
    )
    priced = sum(row["usd"] is not None for row in held)
    of = "" if priced == len(held) else f" of the {priced} whose price is known"
    words = "" if best is None else f"<p>{escape(held[best]['machine'])} is the cheapest{of}.</p>"
    prices = listing([f"{row['chip']}: {price_text(row)}" for row in held if row["usd"]])
    return (
        chip_table(held, best) + words + prices + (listing(refused) if refused else "") + pictures
    )


def chip_table(rows: list[dict[str, Any]], chosen: int | None) -> str:
    """One row per chip, of those that can hold the run; `chosen` is highlighted."""
    return table([_row(row) for row in rows], HEAD, chosen)


def _row(row: dict[str, Any]) -> list[str]:
    low, high = row["hours_range"]
    return [
        row["machine"],
        f"{row['chips']:,}",
        duration(row["hours"]),
        UNKNOWN if low == high else span(low, high, duration),
        UNKNOWN if row["usd"] is None else money(row["usd"]),
        f"{row['mfu']:.0%}",
        digits(row["chip_hours"]),
        UNKNOWN if row["kwh"] is None else in_units(row["kwh"], ENERGY),
        row["bound"],
    ]


def _bars(rows: list[dict[str, Any]], key: str, form: Any, caption: str) -> str:
    known = [(row["machine"], row[key]) for row in rows if row[key] is not None]
    if len(known) < 2:
        return ""
    most = max(value for _, value in known)
    return figure(bars([(name, value / most, form(value)) for name, value in known]), caption)
