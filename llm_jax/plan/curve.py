"""What a range of budgets buys: one plan per budget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_jax.config import UserError
from llm_jax.plan.planner import plan
from llm_jax.plan.request import Request


def curve(points: Iterable[tuple[float, Request]]) -> list[dict[str, Any]]:
    """One row per budget, as plain JSON values.

    `refused` is why no run has this budget, else None; `limits` is what makes the run not worth it.

    Args:
      points: the budget in the unit that the user gave it in, and its request.
    """
    rows: list[dict[str, Any]] = []
    for budget, request in points:
        try:
            made = plan(request)
        except UserError as error:
            rows.append({"budget": budget, "refused": str(error)})
            continue
        rows.append(
            {
                "budget": budget,
                "refused": None,
                "params": made.params,
                "tokens": made.tokens,
                "epochs": made.epochs,
                "flops": made.flops,
                "loss": made.loss,
                "loss_interval": None if made.interval is None else list(made.interval),
                "machine": made.execution.machine.name,
                "chips": made.chips,
                "hours": made.hours,
                "hours_range": list(made.hours_range),
                "chip_hours": made.chip_hours,
                "usd": made.usd,
                "limits": list(made.limits),
            }
        )
    return rows
