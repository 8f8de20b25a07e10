"""This commit against another one: the train step and the data pipeline, in turns.

    python benchmarks/before.py REF [--size S] [--rounds 9]

REF is checked out beside this one for the time of the run. Each of the two runs its own code, in a
process of its own; they take turns, and the order within a turn alternates. The figure is the
median of the ratios within a turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from llm_jax.commands.train import environment
from llm_jax.data.build import BuildSpec, VocabSpec, build
from llm_jax.data.sources import StdlibSource

ROOT = Path(__file__).resolve().parent.parent
DATA_WORKER = """
import os, sys
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
sys.path.insert(0, "benchmarks")
import data
batches = data.TokenDataset.open(sys.argv[1]).batches(seq_len=512, batch_size=8, seed=0)
print(data.pipeline_rate(batches, 100), flush=True)
for _ in sys.stdin:
    print(data.pipeline_rate(batches, 500), flush=True)
"""


class Worker:
    """A process of one of the two commits. It answers each line with a line."""

    def __init__(self, tree: Path, command: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=tree,
            env=os.environ | env | {"PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()  # the first is slower: it compiles, or fills caches

    def ask(self) -> float:
        """Seconds per step, or tokens per second."""
        print("go", file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A worker ended early; see its message above.")
        found = json.loads(line)
        return found if isinstance(found, float) else found.get("seconds", 0.0)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def ratios(now: Worker, before: Worker, rounds: int) -> list[float]:
    """What `now` answers, divided by what `before` answers, in each turn."""
    found = []
    for turn in range(rounds):
        first, second = (now, before) if turn % 2 else (before, now)
        answers = {first: first.ask(), second: second.ask()}
        found.append(answers[now] / answers[before])
    return found


def compare(name: str, trees: list[Path], command: list[str], env: dict[str, str], rounds: int):
    now, before = (Worker(tree, command, env) for tree in trees)
    found = ratios(now, before, rounds)
    now.stop()
    before.stop()
    low, *_, high = sorted(found)
    print(f"{name:<28}{statistics.median(found):.3f} x   ({low:.3f} to {high:.3f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ref", help="commit to compare with")
    parser.add_argument("--size", default="S", help="size of benchmarks/train_step.py")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tree, dataset = Path(scratch, "before"), Path(scratch, "stdlib")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), args.ref], check=True)
        try:
            print(f"now / {args.ref}: seconds of a step (less is faster), tokens/s of the data")
            step = ["benchmarks/train_step.py", "--worker", "ours", "--size", args.size]
            compare(f"train step {args.size}", [ROOT, tree], step, environment(), args.rounds)
            spec = BuildSpec(sources=(StdlibSource(),), tokenizer=VocabSpec(vocab_size=4096))
            build(spec, dataset, lambda phase, done, total: None)
            data = ["-c", DATA_WORKER, str(dataset)]
            compare("data pipeline", [ROOT, tree], data, {}, args.rounds)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


if __name__ == "__main__":
    main()
