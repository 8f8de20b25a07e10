"""Compare the predicted and measured loss, step time, throughput and cost of a run.

The prediction is the one that `llm-jax plan --write` left beside the run's config. The files are
report.html, a self-contained page, and report.png. The page also shows the run's course, where its
time went, what it read, and what `eval --keep` and `generate --keep` left. With --calibrate, later
plans for the run's chips learn from its steps, as by `llm-jax plan --calibrate`.

example: llm-jax report quickstart/run
example: llm-jax report runs/first --calibrate --chip v5e --chips 32
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import count
from llm_jax.commands.own_speed import calibrate, calibrated_text
from llm_jax.config import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, help="folder for the files (default: RUN)")
    parser.add_argument("--calibrate", action="store_true",
                        help="teach later plans the speed of the run's chips")  # fmt: skip
    parser.add_argument("--chip", help="with --calibrate: chip or slice of the run, such as v5e or "
                        "v5e-32 (default: local)")  # fmt: skip
    parser.add_argument("--chips", type=count, help="with --calibrate: number of chips of the run")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.report.outcome import compare, config_of

    for flag, value in (("--chip", args.chip), ("--chips", args.chips)):
        if value is not None and not args.calibrate:
            raise UserError(f"{flag} is {value}, which only --calibrate needs: add it, or leave "
                            f"{flag} out.")  # fmt: skip
    found = compare(args.run)
    args.chip, args.remeasure = args.chip or "local", False
    learnt = calibrate(args, [args.run]) if args.calibrate else None
    from llm_jax.report.outcome_page import page
    from llm_jax.report.run_charts import draw
    from llm_jax.report.series import series
    from llm_jax.runs.files import replacing
    from llm_jax.runs.history import read_history

    folder, config = args.out or args.run, config_of(args.run)
    curves = series(args.run, config, read_history(args.run, config))
    text = page(args.run, found, curves)
    html, picture = folder / "report.html", folder / "report.png"
    with replacing(html) as written, replacing(picture) as drawn:
        written.write_text(text, encoding="utf-8")
        draw(found, curves, drawn)
    return {**found, "calibration": learnt, "html": str(html), "png": str(picture)}


def text(result: dict[str, Any]) -> str:
    from llm_jax.report.outcome_page import HEAD, rows
    from llm_jax.report.verdict import headline, sentences

    table = [[title.removesuffix(" #").lower() for title in HEAD], *rows(result)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table
    ]
    if judged := sentences(result):
        lines += ["", f"{headline(result)[0]}:", *(f"  - {sentence}" for sentence in judged)]
    lines += [f"note: {warning}" for warning in result["warnings"]]
    if result["calibration"]:
        lines += ["", calibrated_text(result["calibration"])]
    return "\n".join([*lines, "", f"Wrote {result['html']} and {result['png']}."])
