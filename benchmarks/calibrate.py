"""Fits the planner's step time to published runs, and writes llm_jax/facts/calibration.json.

    python benchmarks/calibrate.py [--check]

The roofline gives the time of each resource. A few factors say how much of it a step takes: one
share of the peak per chip, one for attention, one for narrow matmuls, one for each kind of
communication, one for slices. Each has a prior from physics, whose weight is that of a few runs.
`--check` prints what would be written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from published_runs import Published, published
from scipy.optimize import least_squares
from scipy.stats import t as student_t

from llm_jax.config import to_dict
from llm_jax.facts.calibration import FILE, Calibration, ChipFactors
from llm_jax.facts.hardware import chip
from llm_jax.runs.files import write_text

NOISE = 0.10
"""Relative error of a published speed, beside which the priors are weighed."""
PRIOR_RUNS = 5.0
"""How many runs with the errors of all chips stand beside those of one chip."""
# Name: (prior, its standard deviation, least, most). Logarithms where a name begins with "ln".
SHARE = {"tpu": (math.log(0.7), 0.25, -3.0, 0.0), "gpu": (math.log(0.5), 0.25, -3.0, 0.0)}
COMMON = {
    "ln attention": (math.log(0.5), 0.5, -3.0, 0.3),
    "ln half_width": (math.log(500), 1.0, 0.0, 9.0),
    "fsdp": (0.3, 0.3, 0.0, 1.2),
    "tensor": (0.3, 0.3, 0.0, 1.2),
    "data": (0.3, 0.3, 0.0, 1.2),
    "per_doubling": (0.01, 0.02, 0.0, 0.1),
}
OTHER = {
    "ln experts": (math.log(0.8), 0.5, -3.0, 0.0),
    "ln expert_half_rows": (math.log(512), 0.5, 0.0, 9.0),
    "ln eight_bit": (math.log(0.8), 0.5, -3.0, 0.0),
}
"""Those of sparse models and of 8-bit matmuls, fitted to such runs after all others."""


Rule = tuple[float, float, float, float]


def solved(
    rules: dict[str, Rule], errors: Callable[[dict[str, float]], list[float]]
) -> dict[str, float]:
    """The factors with the least squared errors, each beside its prior.

    Args:
      errors: factors -> ln(predicted/measured) of each run.
    """
    prior, width, least, most = (np.array(column) for column in zip(*rules.values(), strict=True))

    def factors(values: np.ndarray) -> dict[str, float]:
        return {
            name.removeprefix("ln "): math.exp(value) if name.startswith("ln ") else float(value)
            for name, value in zip(rules, values, strict=True)
        }

    def residuals(values: np.ndarray) -> np.ndarray:
        return np.array([*np.array(errors(factors(values))) / NOISE, *((values - prior) / width)])

    start = np.clip(prior, least + 1e-6, most - 1e-6)
    return factors(least_squares(residuals, start, bounds=(least, most)).x)


def fit(runs: Sequence[Published], chips: Sequence[str]) -> Calibration:
    """The factors that fit dense runs best, for all of `chips`; the intervals are not set."""
    shares = {f"ln {name}": SHARE[chip(name).kind] for name in chips}
    others = {name.removeprefix("ln "): math.exp(rule[0]) for name, rule in OTHER.items()}

    def made(values: dict[str, float]) -> Calibration:
        return Calibration(
            date="",
            source="",
            chips=tuple(
                ChipFactors(name=name, share=values[name], interval=0.0, runs=0) for name in chips
            ),
            unknown_interval=0.0,
            sparse_interval=0.0,
            eight_bit_interval=0.0,
            **{name: value for name, value in values.items() if name not in chips},
            **others,
        )

    return made(solved(shares | COMMON, lambda now: [run.error(made(now)) for run in runs]))


def fit_others(runs: Sequence[Published], dense: Calibration) -> Calibration:
    """`dense` with the factors that fit sparse models and 8-bit matmuls best."""

    def made(values: dict[str, Any]) -> Calibration:
        return replace(dense, **values)

    explained = [run for run in runs if run.explained]
    return made(solved(OTHER, lambda now: [run.error(made(now)) for run in explained]))


def held_out_errors(
    runs: Sequence[Published], fit: Callable[[Sequence[Published]], Calibration]
) -> dict[str, float]:
    """ln(predicted/measured) of each run by a fit that saw neither it nor its twins."""
    found: dict[str, float] = {}
    for twin in sorted({run.twin for run in runs}):
        fitted = fit([run for run in runs if run.twin != twin])
        found |= {run.name: run.error(fitted) for run in runs if run.twin == twin}
    return found


def intervals(runs: Sequence[Published], errors: dict[str, float]) -> dict[str, float]:
    """Half of the 90% interval of ln(seconds) by chip: Student's t over the chip's own errors, and
    those of all chips as `PRIOR_RUNS` runs.
    """
    everything = spread(errors.values())
    found = {}
    for name in {run.machine.chip.name for run in runs}:
        own = [errors[run.name] ** 2 for run in runs if run.machine.chip.name == name]
        count = PRIOR_RUNS + len(own)
        both = math.sqrt((PRIOR_RUNS * everything**2 + sum(own)) / count)
        found[name] = float(student_t.ppf(0.95, count)) * both
    return found


def spread(errors: Iterable[float]) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean(np.square(list(errors)))))


def calibrated(runs: Sequence[Published]) -> tuple[Calibration, dict[str, float]]:
    """The factors with their intervals, and the errors of the cross-validation."""
    dense, others = [run for run in runs if run.dense], [run for run in runs if not run.dense]
    chips = sorted({run.machine.chip.name for run in dense})
    errors = held_out_errors(dense, lambda seen: fit(seen, chips))
    interval, counts = intervals(dense, errors), [run.machine.chip.name for run in dense]
    fitted = fit(dense, chips)
    errors |= held_out_errors(others, lambda seen: fit_others(seen, fitted))
    fitted = fit_others(others, fitted)
    shares = [math.log(one.share) for one in fitted.chips if chip(one.name).kind == "tpu"]
    kinds = {
        "sparse_interval": [run.name for run in others if run.model.moe],
        "eight_bit_interval": [run.name for run in others if run.precision != "bf16"],
    }
    wider = {
        kind: student_t.ppf(0.95, len(names)) * spread(errors[name] for name in names)
        for kind, names in kinds.items()
    }
    wider["unknown_interval"] = math.hypot(1.645 * float(np.std(shares)), max(interval.values()))
    factors = {name.removeprefix("ln "): 0.0 for name in COMMON | OTHER}
    rounded = {name: round(getattr(fitted, name), 4) for name in factors}
    return Calibration(
        date=datetime.date.today().isoformat(),
        source=f"{len(dense)} dense bfloat16 runs of benchmarks/published_runs.csv, and "
        f"{len(others)} of sparse models or in 8 bits",
        chips=tuple(
            replace(one, share=round(one.share, 4), interval=round(interval[one.name], 4),
                    runs=counts.count(one.name))
            for one in fitted.chips
        ),
        **rounded,
        **{name: round(float(value), 4) for name, value in wider.items()},
    ), errors  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    fitted, _ = calibrated(published())
    text = json.dumps(to_dict(fitted), indent=1) + "\n"
    print(text, end="")
    if not args.check:
        write_text(FILE, text)


if __name__ == "__main__":
    main()
