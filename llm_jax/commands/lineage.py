"""Show what a checkpoint has read, by stage and source, and the runs and models it began with.

llm-jax lineage runs/domain
llm-jax lineage runs/domain@4000 --json
"""

from __future__ import annotations

import argparse
from typing import Any

from llm_jax.config import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN[@STEP]",
        help="folder of the run, and a checkpoint (default: the newest)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.report.lineage_tree import parents, sources, tree
    from llm_jax.runs.places import folder_and_step, run_file, saved_steps
    from llm_jax.train.lineage import lineage_at

    folder, step = folder_and_step(args.run)
    run_file(folder)
    steps = saved_steps(folder)
    if not steps or step not in (None, *steps):
        known = f"it has {', '.join(map(str, steps))}" if steps else "train it first"
        wanted = "yet" if step is None else f"of step {step}"
        raise UserError(f"The run in {str(folder)!r} has no checkpoint {wanted}: {known}.")
    lineage = lineage_at(folder, steps[-1] if step is None else step)
    texts = lineage["texts"]
    stages = [
        stage | {"read": [{"name": texts[one["text"]]["name"]} | one for one in stage["read"]]}
        for stage in lineage["stages"]
    ]
    return {
        "run": lineage["run"],
        "step": lineage["step"],
        "tokens": lineage["tokens"],
        "stages": stages,
        "texts": texts,
        "sources": sources(lineage),
        "parents": parents(lineage),
        "branches": lineage["branches"],
        "tree": tree(lineage),
    }


def text(result: dict[str, Any]) -> str:
    return "\n".join(result["tree"])
