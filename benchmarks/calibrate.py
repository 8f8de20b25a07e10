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
from collections.abc import Sequence
from dataclasses import replace

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


def fit(runs: Sequence[Published], chips: Sequence[str]) -> Calibration:
    """The factors that fit the runs best, for all of `chips`; the intervals are not set."""
    rules = [SHARE[chip(name).kind] for name in chips] + list(COMMON.values())
    prior, width, least, most = (np.array(column) for column in zip(*rules, strict=True))

    def factors(values: np.ndarray) -> Calibration:
        shares, rest = values[: len(chips)], values[len(chips) :]
        common = {
            name.removeprefix("ln "): math.exp(value) if name.startswith("ln ") else float(value)
            for name, value in zip(COMMON, rest, strict=True)
        }
        made = [
            ChipFactors(name=name, share=math.exp(share), interval=0.0, runs=0)
            for name, share in zip(chips, shares, strict=True)
        ]
        return Calibration(date="", source="", chips=tuple(made), unknown_interval=0.0, **common)

    def residuals(values: np.ndarray) -> np.ndarray:
        now = factors(values)
        return np.array([run.error(now) / NOISE for run in runs] + list((values - prior) / width))

    start = np.clip(prior, least + 1e-6, most - 1e-6)
    return factors(least_squares(residuals, start, bounds=(least, most)).x)


def held_out_errors(runs: Sequence[Published], chips: Sequence[str]) -> dict[str, float]:
    """ln(predicted/measured) of each run by a fit that saw neither it nor its twins."""
    found: dict[str, float] = {}
    for twin in sorted({run.twin for run in runs}):
        fitted = fit([run for run in runs if run.twin != twin], chips)
        found |= {run.name: run.error(fitted) for run in runs if run.twin == twin}
    return found


def intervals(runs: Sequence[Published], errors: dict[str, float]) -> dict[str, float]:
    """Half of the 90% interval of ln(seconds) by chip: Student's t over the chip's own errors, and
    those of all chips as `PRIOR_RUNS` runs.

    The spread of all is a robust one (median absolute error), which one run cannot move.
    """
    everything = 1.4826 * float(np.median(np.abs(list(errors.values()))))
    found = {}
    for name in {run.machine.chip.name for run in runs}:
        own = [errors[run.name] ** 2 for run in runs if run.machine.chip.name == name]
        count = PRIOR_RUNS + len(own)
        spread = math.sqrt((PRIOR_RUNS * everything**2 + sum(own)) / count)
        found[name] = float(student_t.ppf(0.95, count)) * spread
    return found


def calibrated(runs: Sequence[Published]) -> tuple[Calibration, dict[str, float]]:
    """The factors with their intervals, and the errors of the cross-validation."""
    chips = sorted({run.machine.chip.name for run in runs})
    errors = held_out_errors(runs, chips)
    interval, counts = intervals(runs, errors), [run.machine.chip.name for run in runs]
    fitted = fit(runs, chips)
    made = tuple(
        replace(one, share=round(one.share, 4), interval=round(interval[one.name], 4),
                runs=counts.count(one.name))
        for one in fitted.chips
    )  # fmt: skip
    shares = [math.log(one.share) for one in made if chip(one.name).kind == "tpu"]
    unknown = math.hypot(1.645 * float(np.std(shares)), max(interval.values()))
    rounded = {
        name.removeprefix("ln "): round(getattr(fitted, name.removeprefix("ln ")), 4)
        for name in COMMON
    }
    return Calibration(
        date=datetime.date.today().isoformat(),
        source=f"{len(runs)} dense bfloat16 runs of benchmarks/published_runs.csv",
        chips=made,
        unknown_interval=round(unknown, 4),
        **rounded,
    ), errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    fitted, _ = calibrated([run for run in published()[0] if run.dense])
    text = json.dumps(to_dict(fitted), indent=1) + "\n"
    print(text, end="")
    if not args.check:
        write_text(FILE, text)


if __name__ == "__main__":
    main()
