"""`plan --calibrate` and `report --calibrate`: what runs of yours say of a chip's speed."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from llm_jax.commands.plan_request import machine_of
from llm_jax.config import UserError


def calibrate(args: argparse.Namespace, runs: list[Path]) -> dict[str, Any]:
    """What the runs say of the speed of `--chip`; it is kept for later plans."""
    from llm_jax.plan.own_speed import file, learn, own_speed

    unit, chips = machine_of(args)
    if chips is None:
        raise UserError("--calibrate needs --chips: give the number of chips of the runs.")
    rows = learn(runs, unit, chips)
    speed = own_speed(unit)
    assert speed is not None
    return {
        "calibrated": unit.name,
        "runs": rows,
        "factor": speed.factor,
        "interval": [math.exp(-speed.interval), math.exp(speed.interval)],
        "kept": str(file()),
    }


def calibrated_text(result: dict[str, Any]) -> str:
    lines = [
        f"{row['run']}: {row['measured']:.4g} s per step measured, {row['predicted']:.4g} s "
        f"planned, {row['ratio']:.2f} times"
        for row in result["runs"]
    ]
    low, high = result["interval"]
    lines.append(
        f"Plans for {result['calibrated']} take {result['factor']:.2f} times the planner's step "
        f"time now (90%: ×{low:.2f} to ×{high:.2f} of that), by {result['kept']}."
    )
    return "\n".join(lines)
