"""What a launched job is doing, and why it stopped if it did.

Examples:
  llm-jax launch status runs/demo
  llm-jax launch status runs/demo --watch
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

GOING = ("waiting", "running", "stopping", "preempted")
WATCH_SECONDS = 2.0
SHOWN = 8
"""Hosts that failed to start and are shown, one a line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="output folder of the job")
    parser.add_argument("--watch", action="store_true", help="keep showing it until it has ended")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.launch.job import status

    result = status(args.out)
    if args.watch:
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        show = _live(console) if console.is_terminal else _lines(console)
        with contextlib.closing(show):
            next(show)
            while result["state"] in GOING:
                show.send(text(result))
                time.sleep(WATCH_SECONDS)
                result = status(args.out)
    return result


def _live(console: Console) -> Generator[None, str, None]:
    """Replaces what it showed before by what it is sent."""
    from rich.live import Live
    from rich.text import Text

    with Live(console=console, transient=True) as live:
        while True:
            live.update(Text((yield)))


def _lines(console: Console) -> Generator[None, str, None]:
    """Prints what it is sent where it differs from what it was sent before."""
    before: set[str] = set()
    while True:
        now = (yield).splitlines()
        for line in now:
            if line not in before:
                console.print(line, markup=False, soft_wrap=True)
        before = set(now)


def text(result: dict[str, Any]) -> str:
    from llm_jax.config.wording import counted
    from llm_jax.launch.progress import progress_line
    from llm_jax.launch.startup import StartFailure

    step = f", step {result['step']}" if result["step"] >= 0 else ""
    phase = f" ({result['phase'] or 'trainers are starting'})"
    phase = phase if result["state"] == "running" else ""
    lines = [f"{result['job']} on {result['backend']}: {result['state']}{step}{phase}"]
    if result["detail"]:
        lines.append(result["detail"])
    if result["progress"]:
        lines.append(progress_line(result["progress"]))
    for attempt in result["attempts"]:
        state = "under way" if attempt["state"] == "open" else attempt["state"]
        lines.append(f"  attempt {attempt['attempt']}  {state}  {attempt['cause']}".rstrip())
    failures = [StartFailure(**one) for one in result["start_failures"]]
    lines += [f"  {failure}" for failure in failures[:SHOWN]]
    if failures[SHOWN:]:
        lines.append(f"  and {counted(len(failures) - SHOWN, 'other host')} failed to start")
    if result["cause"]:
        lines.append(f"cause: {result['cause']}")
    return "\n".join(lines)
