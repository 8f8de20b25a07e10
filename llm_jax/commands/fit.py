"""Fit a scaling law L(N, D) = E + A/N^alpha + B/D^beta to runs, with bootstrap intervals.

Reads CSV files and folders of runs trained here. A CSV file has the columns params,tokens,loss;
rows with the same value in an optional column run are points of one curve. Writes a law file for
`plan --law` and a figure. With --move, a law learns from runs that were trained after it instead:
its E moves, its exponents stay.

examples:
  llm-jax fit runs.csv --out law.json
  llm-jax fit quickstart/run --move configs/laws/stdlib.json --out law.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.commands import bootstraps, seed
from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.runs.files import replacing

FIGURES = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, help="CSV files and run folders")
    parser.add_argument(
        "--out", type=Path, default=Path("law.json"), help="law file to write (default: law.json)"
    )
    parser.add_argument("--figure", type=Path, help="figure to write (default: OUT with .png)")
    parser.add_argument(
        "--move", metavar="LAW", type=Path, help="law file that the runs move, in place of a fit"
    )
    parser.add_argument("--name", help="name of the law (default: fitted, or that of --move)")
    parser.add_argument(
        "--counts",
        choices=("all", "non-embedding"),
        help="whether params counts the embeddings (default: all)",
    )
    parser.add_argument(
        "--bootstraps",
        type=bootstraps,
        help="bootstrap draws for the intervals (default: 4000)",
    )
    parser.add_argument("--seed", type=seed, help="seed of the bootstrap draws (default: 0)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return _fit(args) if args.move is None else _move(args)


def _move(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import replace

    from llm_jax.laws import lawfile
    from llm_jax.laws.later_runs import met, read

    _refuse_published(args.name)
    for flag in ("figure", "counts", "bootstraps", "seed"):
        if getattr(args, flag) is not None:
            raise UserError(
                f"--{flag} is given with --move, which moves E and fits nothing: leave it out."
            )
    law = lawfile.read(args.move)
    later = read(law, args.runs)
    moved = met(law, later)
    named = f"{law.source}; E moved by {moved.E - law.E:+.4f} by {counted(len(later), 'later run')}"
    lawfile.write(replace(moved, name=args.name or law.name, source=named), args.out)
    return {
        "E": moved.E,
        "moved": moved.E - law.E,
        "spread": moved.spread,
        "runs": [
            {
                "name": run.name,
                "params": run.params,
                "tokens": run.tokens[-1],
                "loss": run.loss[-1],
                "before": law.loss(run.params, run.tokens[-1]),
                "after": moved.loss(run.params, run.tokens[-1]),
            }
            for run in later
        ],
        "law": str(args.out),
        "warnings": [
            sentence for run in later for sentence in law.warnings(run.params, run.tokens[-1])
        ],
    }


def _fit(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.laws import lawfile
    from llm_jax.laws.fit_figure import draw
    from llm_jax.laws.fitting import PARAMETERS, fit, huber
    from llm_jax.laws.law import Counts
    from llm_jax.laws.profiles import drop_sensitivity, envelope, isoflop
    from llm_jax.laws.run_curves import finals, read

    name = args.name or "fitted"
    counts: Counts = args.counts or "all"
    asked = 4000 if args.bootstraps is None else args.bootstraps
    _refuse_published(name)
    figure = args.figure or args.out.parent / f"{args.out.stem}.png"
    if figure.suffix not in FIGURES:
        raise UserError(f"--figure is {str(figure)!r}: its name must end in {', '.join(FIGURES)}.")
    curves = read(args.runs, counts)
    runs = finals(curves)
    law = fit(
        runs,
        name=name,
        source=f"fitted to {len(curves)} runs of {', '.join(str(path) for path in args.runs)}",
        counts=counts,
        bootstraps=asked,
        seed=args.seed or 0,
    )
    with replacing(args.out) as temporary:  # no law without its figure
        lawfile.write(law, temporary)
        draw(runs, law, figure)
    low, high = np.quantile(np.asarray(law.draws), [0.05, 0.95], axis=0)
    parabolas, notes = isoflop(runs)
    lowest = envelope(curves)
    drawn = len(law.draws)
    if drawn < asked:
        notes.append(
            f"{asked - drawn} of {asked} bootstrap samples did not determine "
            "the law and are left out."
        )
    return {
        **{key: getattr(law, key) for key in PARAMETERS},
        "a": law.a,
        "huber": huber(runs, law),
        "residual": law.residual,
        "intervals": {key: [float(low[i]), float(high[i])] for i, key in enumerate(PARAMETERS)},
        "converged": True,
        "n": len(curves),
        "bootstraps": drawn,
        "sensitivity": drop_sensitivity(runs, law),
        "isoflop": {"a": parabolas.a, "k": parabolas.k, "optima": parabolas.points},
        "envelope": {"a": lowest.a, "k": lowest.k},
        "law": str(args.out),
        "figure": str(figure),
        "warnings": notes,
    }


def _refuse_published(name: str | None) -> None:
    from llm_jax.laws.published import PRESETS

    if name in PRESETS:
        raise UserError(f"--name {name!r} is the name of a published law: choose another.")


def text(result: dict[str, Any]) -> str:
    return _moved(result) if "moved" in result else _fitted(result)


def _moved(result: dict[str, Any]) -> str:
    lines = [
        f"  {'run':<20}{'params':>10}{'tokens':>10}{'measured':>10}{'before':>10}{'after':>10}"
    ]
    for run in result["runs"]:
        losses = "".join(f"{run[key]:>10.4f}" for key in ("loss", "before", "after"))
        lines.append(f"  {run['name']:<20}{run['params']:>10.3g}{run['tokens']:>10.3g}{losses}")
    lines += [
        "",
        f"  E moved by {result['moved']:+.4f} to {result['E']:.4f}; later runs spread by "
        f"{result['spread']:.2%} of the loss.",
        *(f"  note: {note}" for note in result["warnings"]),
        "",
        f"Wrote {result['law']}.",
        "",
        f"Next: llm-jax plan --law {result['law']} --flops 1e13",
    ]
    return "\n".join(lines)


def _fitted(result: dict[str, Any]) -> str:
    lines = [
        f"Fitted {counted(result['n'], 'run')}, {counted(result['bootstraps'], 'bootstrap draw')}.",
        "",
    ]
    for key, (low, high) in result["intervals"].items():
        lines.append(f"  {key:<6}{result[key]:>12.5g}   90% interval {low:.5g} to {high:.5g}")
    lines += [
        "",
        f"  N_opt grows as C^{result['a']:.3f}; residuals {100 * result['residual']:.2g}% of the "
        "loss.",
    ]
    for name, what in (("isoflop", "IsoFLOP parabolas"), ("envelope", "Envelope of the curves")):
        if result[name]["a"] is not None:
            lines.append(f"  {what}: N_opt grows as C^{result[name]['a']:.3f}.")
    if result["sensitivity"]:
        lines += ["", "  Without the runs with the highest loss:"]
        for row in result["sensitivity"]:
            lines.append(
                f"    {row['dropped']} dropped: E {row['E']:.4g}, alpha {row['alpha']:.4g}, "
                f"beta {row['beta']:.4g}"
            )
    lines += [f"  note: {note}" for note in result["warnings"]]
    lines += ["", f"Wrote {result['law']} and {result['figure']}.", ""]
    return "\n".join([*lines, f"Next: llm-jax plan --law {result['law']} --flops 1e20"])
