"""A job of thousands of hosts in virtual time: its requests, and how soon it recovers.

    python benchmarks/scale.py [HOSTS ...] [--failures 6] [--every 600] [--seed 1] [--before REF]

The agents, the supervisor, its lease, and the records are the real code. The bucket is a model
(`simulated/bucket.py`), as are trainers, machines and the cloud (`simulated/job.py`). Failures come
at random, a third of each kind: a trainer crashes and the others hang; a trainer crashes and all
others end; a machine is gone. `--before` runs another commit's launcher in the same simulator.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
KINDS = ("crash", "storm", "host")
MOST_SECONDS = 7200.0
"""Of virtual time, from a failure until the job trains again; then it counts as stuck."""


def measure(
    hosts: int, failures: int, every: float, seed: int, kinds: tuple[str, ...] = KINDS
) -> dict[str, Any]:
    """Runs a job through failures and returns the figures that `main` prints, times in seconds."""
    from simulated.job import CHIPS, Job

    began = time.process_time()
    job = Job(hosts, seed)
    chosen = [kinds[number % len(kinds)] for number in range(failures)]
    random.Random(seed).shuffle(chosen)
    job.run(chosen, every, MOST_SECONDS)
    seconds = [s for a, b in job.training for s in range(int(a) + 1, int(b))]
    steady = sum(map(job.bucket.requests, seconds)) / max(1, len(seconds))
    of_kind = {kind: [f for f in job.failures if f.kind == kind] for kind in kinds}
    lost = [
        (f.stepping if f.stepping is not None else job.world.now) - f.moment for f in job.failures
    ]
    detect = {k: max(f.last(f.ended) for f in fs) for k, fs in of_kind.items() if fs}
    decide = {k: max(f.last(f.again) for f in fs) for k, fs in of_kind.items() if fs}
    return {
        "hosts": hosts,
        "failures": len(job.failures),
        "hours": job.world.now / 3600,
        "per_host_hour": len(job.failures) / hosts / (job.world.now / 3600),
        "steady": steady,
        "peak": max(map(job.bucket.requests, range(int(job.world.now)))),
        "refused": job.bucket.refused,
        "detect": detect,
        "decide": decide,
        "wasted_chip_hours": sum(lost) * hosts * CHIPS / 3600,
        "resumed": sum(f.stepping is not None for f in job.failures),
        "cpu_seconds": time.process_time() - began,
        "said": job.said,
    }


def row(found: dict[str, Any]) -> str:
    def shown(values: dict[str, float], *kinds: str) -> str:
        known = [values[kind] for kind in kinds if kind in values]
        return f"{max(known):6.0f}" if known else "     -"

    return (
        f"{found['hosts']:6,} {found['steady']:9,.0f} {found['peak']:8,}"
        f" {shown(found['detect'], 'crash', 'storm')} {shown(found['decide'], 'crash', 'storm')}"
        f" {shown(found['detect'], 'host')} {shown(found['decide'], 'host')}"
        f" {found['wasted_chip_hours']:9,.1f} {found['resumed']:3}/{found['failures']}"
        f" {found['per_host_hour']:9.4f} {found['cpu_seconds']:6.0f}"
    )


HEAD = (
    "        requests per second   trainer fails   machine is gone\n"
    " hosts    steady     peak detect decide detect decide chip-hours resumed per host-h  CPU s"
)


def before(ref: str, words: list[str]) -> None:
    """Runs this program with the package of another commit."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "before")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), ref], check=True)
        try:
            env = os.environ | {"PYTHONPATH": str(tree)}
            subprocess.run([sys.executable, __file__, *words], env=env, check=True)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hosts", type=int, nargs="*", default=[16, 256, 2048, 4096])
    parser.add_argument("--failures", type=int, default=6)
    parser.add_argument("--every", type=float, default=600.0, help="mean seconds between two")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--before", metavar="REF", help="commit whose launcher to run")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.before:
        words = [*map(str, args.hosts), "--failures", str(args.failures), "--every"]
        words += [str(args.every), "--seed", str(args.seed), *(["--json"] if args.json else [])]
        before(args.before, words)
        return
    if not args.json:
        print(HEAD, flush=True)
    for hosts in args.hosts:
        found = measure(hosts, args.failures, args.every, args.seed)
        print(json.dumps(found) if args.json else row(found), flush=True)


if __name__ == "__main__":
    main()
