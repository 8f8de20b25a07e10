"""Compare the predicted and measured loss, step time, throughput and cost of a run.

The prediction is the one that `llm-jax plan --write` stored in the run's config. The files are
report.html, a self-contained page, and report.png.

example: llm-jax report quickstart/run
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, help="folder for the files (default: RUN)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.report.outcome import compare, curves

    found = compare(args.run)
    from llm_jax.report.outcome_page import draw, page
    from llm_jax.runs.files import replacing

    folder = args.out or args.run
    lines = curves(args.run)
    html, picture = folder / "report.html", folder / "report.png"
    with replacing(html) as written, replacing(picture) as drawn:
        written.write_text(page(found, lines), encoding="utf-8")
        draw(found, lines, drawn)
    return {**found, "html": str(html), "png": str(picture)}


def text(result: dict[str, Any]) -> str:
    from llm_jax.report.outcome_page import rows

    table = [["", "predicted", "measured", "difference"], *rows(result)]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))])
        for row in table
    ]
    lines += [f"note: {warning}" for warning in result["warnings"]]
    return "\n".join([*lines, "", f"Wrote {result['html']} and {result['png']}."])
