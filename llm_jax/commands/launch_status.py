"""What a launched job is doing, and why it stopped if it did.

Example:
  llm-jax launch status runs/demo
"""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="output folder of the job")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.launch.job import status

    return status(args.out)


def text(result: dict[str, Any]) -> str:
    step = f", step {result['step']}" if result["step"] >= 0 else ""
    phase = f" ({result['phase']})" if result["phase"] and result["state"] == "running" else ""
    lines = [f"{result['job']} on {result['backend']}: {result['state']}{step}{phase}"]
    if result["detail"]:
        lines.append(result["detail"])
    for attempt in result["attempts"]:
        lines.append(f"  attempt {attempt['attempt']}  {attempt['state']}  {attempt['cause']}")
    if result["cause"]:
        lines.append(f"cause: {result['cause']}")
    return "\n".join(lines)
