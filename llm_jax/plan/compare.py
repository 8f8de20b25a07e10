"""The same run on several chips, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from llm_jax.config import UserError
from llm_jax.facts.hardware import Chip
from llm_jax.plan.output import price
from llm_jax.plan.own_speed import own_speed
from llm_jax.plan.plan import Plan
from llm_jax.plan.planner import plan


def on_chip(made: Plan, chip: Chip) -> Plan:
    """The model and the tokens of `made` on another chip, on as many as suit it.

    Raises:
      UserError: no slice of the chip can hold the model, or the batch is too small.
    """
    if chip.name == made.request.chip.name:
        return made
    request = replace(
        made.request, chip=chip, budget="flops", amount=6.0 * made.params * made.tokens,
        chips=None, params=float(made.params), tokens=float(made.tokens), fixed=True,
        vocab_size=made.model.vocab_size, seq_len=made.seq_len, inference_tokens=0.0, watts=None,
        usd_per_hour=None, spot_discount=0.0, speed=own_speed(chip),
    )  # fmt: skip
    return plan(request)


def compared(made: Plan, chips: Iterable[Chip]) -> list[dict[str, Any]]:
    """One row per chip, as plain JSON values: where the run is cheapest, and what limits it.

    `refused` is why a chip cannot hold the run, else None. `cheapest` marks the lowest price, or
    the fewest chip-hours where no price is known.
    """
    rows: list[dict[str, Any]] = []
    for chip in chips:
        try:
            other = on_chip(made, chip)
        except UserError as error:
            rows.append({"chip": chip.name, "refused": str(error)})
            continue
        time = other.execution.time
        rows.append(
            {
                "chip": chip.name,
                "refused": None,
                "machine": other.execution.machine.name,
                "chips": other.chips,
                "hours": other.hours,
                "hours_range": list(other.hours_range),
                "chip_hours": other.chip_hours,
                "usd": other.usd,
                "usd_per_chip_hour": other.request.price,
                "price": price(other.request),
                "kwh": other.kwh,
                "mfu": other.mfu,
                "bound": time.bound,
                "published_runs": time.runs,
            }
        )
    priced = [row for row in rows if row.get("usd") is not None]
    best = min(priced, key=lambda row: row["usd"], default=None)
    return [row | {"cheapest": row is best} for row in rows]
