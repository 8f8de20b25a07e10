"""Fit a scaling law L(N, D) = E + A/N^alpha + B/D^beta to runs, with bootstrap intervals.

Reads CSV files and folders of runs trained here. A CSV file has the columns params,tokens,loss;
rows with the same value in an optional column run are points of one curve. Writes a law file for
`plan --law` and a figure.

example: llm-jax fit runs.csv --out law.json
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
    parser.add_argument("--name", default="fitted", help="name of the law (default: fitted)")
    parser.add_argument(
        "--counts",
        choices=("all", "non-embedding"),
        default="all",
        help="whether params counts the embeddings (default: all)",
    )
    parser.add_argument(
        "--bootstraps",
        type=bootstraps,
        default=4000,
        help="bootstrap draws for the intervals (default: 4000)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the bootstrap draws (default: 0)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.laws import lawfile
    from llm_jax.laws.fit_figure import draw
    from llm_jax.laws.fitting import PARAMETERS, fit, huber
    from llm_jax.laws.profiles import drop_sensitivity, envelope, isoflop
    from llm_jax.laws.published import PRESETS
    from llm_jax.laws.run_curves import finals, read

    if args.name in PRESETS:
        raise UserError(f"--name {args.name!r} is the name of a published law: choose another.")
    figure = args.figure or args.out.parent / f"{args.out.stem}.png"
    if figure.suffix not in FIGURES:
        raise UserError(f"--figure is {str(figure)!r}: its name must end in {', '.join(FIGURES)}.")
    curves = read(args.runs, args.counts)
    runs = finals(curves)
    law = fit(
        runs,
        name=args.name,
        source=f"fitted to {len(curves)} runs of {', '.join(str(path) for path in args.runs)}",
        counts=args.counts,
        bootstraps=args.bootstraps,
        seed=args.seed,
    )
    with replacing(args.out) as temporary:  # no law without its figure
        lawfile.write(law, temporary)
        draw(runs, law, figure)
    low, high = np.quantile(np.asarray(law.draws), [0.05, 0.95], axis=0)
    parabolas, notes = isoflop(runs)
    lowest = envelope(curves)
    drawn = len(law.draws)
    if drawn < args.bootstraps:
        notes.append(
            f"{args.bootstraps - drawn} of {args.bootstraps} bootstrap samples did not determine "
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


def text(result: dict[str, Any]) -> str:
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
