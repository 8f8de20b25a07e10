"""The output of a launched job's trainers, all hosts merged.

Examples:
  llm-jax launch logs runs/demo
  llm-jax launch logs runs/demo -f --host 1
"""

from __future__ import annotations

import argparse
import time
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="output folder of the job")
    parser.add_argument("-f", "--follow", action="store_true", help="follow until the job ends")
    parser.add_argument("--host", type=int, help="of this host only")
    parser.add_argument("--tail", type=int, default=1000, help="lines to begin with (default 1000)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.launch.job import Logs, status

    logs = Logs(args.out, args.host)
    lines = logs.more()
    lines = lines[max(0, len(lines) - args.tail) :]
    if args.follow and not args.json:
        while True:
            for line in lines:
                print(_format(*line), flush=True)
            state = status(args.out)["state"]
            lines = logs.more()
            if state in ("finished", "failed", "stopped") and not lines:
                break
            time.sleep(1 if logs.folder.address[:5] != "gs://" else 5)
    shown = [{"attempt": a, "host": h, "text": t} for a, h, t in lines]
    return {"job": logs.spec.name, "backend": logs.spec.backend.kind, "lines": shown}


def _format(attempt: str, host: int, line: str) -> str:
    return f"{attempt} host {host} | {line}"


def text(result: dict[str, Any]) -> str:
    return "\n".join(_format(x["attempt"], x["host"], x["text"]) for x in result["lines"])
