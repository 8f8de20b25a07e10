"""Compare the predicted and measured loss, step time, throughput and cost of a run.

The prediction is the one that `llm-jax plan --write` left beside the run's config. The files are
report.html, a self-contained page, and report.png. The page also shows the run's course, where its
time went, what it read, and what `eval --keep` and `generate --keep` left.

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
    from llm_jax.report.outcome import compare, config_of

    found = compare(args.run)
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
    return {**found, "html": str(html), "png": str(picture)}


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
    return "\n".join([*lines, "", f"Wrote {result['html']} and {result['png']}."])
