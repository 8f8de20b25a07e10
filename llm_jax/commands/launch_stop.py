"""Stop a launched job: it saves, its hosts are given back, and what may still cost money is listed.

Example:
  llm-jax launch stop runs/demo
"""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="output folder of the job")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.launch.job import stop

    return stop(args.out, lambda text: print(text, file=sys.stderr, flush=True))


def text(result: dict[str, Any]) -> str:
    lines = [f"{result['job']} on {result['backend']}: {result['state']}"]
    if result["billable"]:
        lines.append("still there, and may cost money:")
        lines += [f"  {line}" for line in result["billable"]]
    else:
        lines.append("nothing of it is left that costs money")
    return "\n".join(lines)
