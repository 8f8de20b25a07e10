"""Every constant of a plan, with its source."""

from __future__ import annotations

import dataclasses

from llm_jax.plan.plan import Plan
from llm_jax.report.amounts import digits
from llm_jax.report.html import table

UNITS = {
    "bf16_flops": (1e12, "TFLOP/s"),
    "f32_flops": (1e12, "TFLOP/s"),
    "int8_flops": (1e12, "TOP/s"),
    "fp8_flops": (1e12, "TFLOP/s"),
    "hbm_bytes": (1e9, "GB"),
    "hbm_bandwidth": (1e9, "GB/s"),
    "ici_bandwidth": (1e9, "GB/s"),
    "dcn_bandwidth": (1e9, "GB/s"),
    "pcie_bandwidth": (1e9, "GB/s"),
    "watts": (1, "W"),
}


def sources(made: Plan, restarts: str) -> str:
    """The table of all constants that the plan was computed from.

    Args:
      restarts: what the time for restarts is computed from, in words.
    """
    request, chip = made.request, made.request.chip
    rows = []
    for item in dataclasses.fields(chip):
        value = getattr(chip, item.name)
        if isinstance(value, int | float) and item.name in chip.sources:
            scale, unit = UNITS.get(item.name, (1, ""))
            name = f"{chip.name}: {item.name.replace('_', ' ')}"
            rows.append(
                [name, f"{digits(value / scale, 5)} {unit}".strip(), chip.sources[item.name]]
            )
    law = made.law
    constants = {
        key: value
        for key, value in vars(getattr(law, "law", law)).items()
        if isinstance(value, float) and key not in ("half_width_nats", "residual", "spread")
    }
    rows += [
        [f"law {law.name}: {key}", f"{value:.6g}", law.source] for key, value in constants.items()
    ]
    rows += [
        ["batch and learning rate", request.rule or "by size", made.hyper.source],
        ["restart overhead", f"{made.overhead:.2%}", restarts],
        ["PUE", f"{request.pue}", "Google's fleet, environmental report 2023"],
        ["carbon", f"{request.carbon} kg CO₂e/kWh", "world average of 2023, Ember"],
    ]  # fmt: skip
    return table(rows, ["Constant", "Value #", "Source"])
