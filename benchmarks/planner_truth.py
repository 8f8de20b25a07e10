"""The planner's step times against published runs, run by run, by chip and in all.

    python benchmarks/planner_truth.py

`fit`: by the factors that are shipped, which have seen the run. `unseen`: by a fit that has seen
neither the run nor its twins (the same model on the same chip); the 90% interval is judged by that.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from statistics import median

from calibrate import calibrated, intervals
from published_runs import Published, published

from llm_jax.facts.calibration import calibration


def figures(errors: Sequence[float]) -> str:
    """How many are within 15% and 30%, and the median ratio."""
    near = [sum(abs(error) < math.log(limit) for error in errors) for limit in (1.15, 1.30)]
    return (
        f"{len(errors):3d} runs, median {math.exp(median(errors)):.2f}, "
        f"{near[0] / len(errors):4.0%} within 15%, {near[1] / len(errors):4.0%} within 30%"
    )


def table(runs: Sequence[Published], unseen: dict[str, float]) -> None:
    print(f"{'run':38}{'measured':>10}{'predicted':>10}{'fit':>6}{'unseen':>8}  assumed")
    for run in runs:
        time = run.time()
        held = f"{math.exp(unseen[run.name]):.2f}" if run.name in unseen else "-"
        print(
            f"{run.name:38}{run.seconds:9.2f}s{time.expected:9.2f}s"
            f"{time.expected / run.seconds:6.2f}{held:>8}  {run.assumed}"
        )


def unseen_interval(run: Published, runs: Sequence[Published], errors: dict[str, float]) -> float:
    """The interval of the run's chip, from the errors of all runs but it and its twins."""
    others = [one for one in runs if one.twin != run.twin]
    found = intervals(others, {one.name: errors[one.name] for one in others})
    return found.get(run.machine.chip.name, max(found.values()))


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    runs = published()
    dense, others = [run for run in runs if run.dense], [run for run in runs if not run.dense]
    now, unseen = calibrated(runs)
    table(dense, unseen)
    print("\nmodels with experts, and 8-bit matmuls:")
    table(others, unseen)
    print("\nby chip, unseen:")
    inside = 0
    for one in now.chips:
        own = [run for run in dense if run.machine.chip.name == one.name]
        held = sum(abs(unseen[r.name]) < unseen_interval(r, dense, unseen) for r in own)
        inside += held
        errors = [unseen[run.name] for run in own]
        print(f"{one.name:8}{figures(errors)}, {held} in the 90% interval")
    shipped = [run.error(calibration()) for run in dense]
    print(f"\nfit      {figures(shipped)}")
    judged = figures([unseen[run.name] for run in dense])
    print(f"unseen   {judged}, {inside / len(dense):.0%} in the 90% interval")
    print(f"experts and 8 bits, unseen   {figures([unseen[run.name] for run in others])}")


if __name__ == "__main__":
    main()
