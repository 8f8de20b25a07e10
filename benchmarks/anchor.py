"""How well a law that one short run moves to another text predicts a longer run there.

    python benchmarks/anchor.py --law configs/laws/stdlib.json --out DIR DATA [DATA …]

Each DATA is a dataset of `llm-jax data build --vocab-size 4096`. On each, two runs of the ladder
`--flops 1e14` are trained: the smallest anchors the law, and the middle one, 2.3 times as many
FLOPs, is predicted. Finished runs in DIR are kept. Printed is predicted over measured, by each way
to move the law.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from llm_jax.commands.recorded_runs import train
from llm_jax.laws import lawfile
from llm_jax.laws.law import Parametric
from llm_jax.laws.run_curves import read_folder
from llm_jax.plan.anchor import shape_of
from llm_jax.plan.dataset_text import Text, read
from llm_jax.plan.ladder_runs import LadderRequest, Rung, plan_ladder
from llm_jax.plan.limited_text import data_constrained, one_source
from llm_jax.plan.this_machine import local_chip

FLOPS = 1e14
SHORT, LONG = 0, 4
"""Places in the ladder, by size and then tokens: 0.40M on 1.27M, and 0.64M on 2.04M."""


def rungs(text: Text) -> list[Rung]:
    """The two runs; the text may be read more than once."""
    enough = replace(text, tokens=10**9)
    ladder = plan_ladder(LadderRequest(text=enough, chip=local_chip(), flops=FLOPS))
    ladder.sort(key=lambda rung: (rung.params, rung.tokens))
    return [ladder[SHORT], ladder[LONG]]


def final_loss(rung: Rung, text: Text, out: Path) -> float:
    """The run's last validation loss, trained now if it has not been."""
    name = f"{Path(text.path).name}-{rung.config.name}"
    train(replace(rung.config, name=name, out=str(out / name)), "run")
    return read_folder(out / name, "all").loss[-1]


def ways(law: Parametric, text: Text, short: Rung, long: Rung, loss: float) -> dict[str, float]:
    """Predicted loss of the long run, from that of the short one, by each way to move the law."""
    constrained = data_constrained(law, one_source(text.tokens))
    at_short = constrained.loss(short.params, short.tokens)
    at_long = constrained.loss(long.params, long.tokens)
    share = (loss - law.E) / (at_short - law.E)
    return {
        "not moved": at_long,
        "all scaled": at_long * loss / at_short,
        "A and B scaled": law.E + (at_long - law.E) * share,
        "E moved": at_long + loss - at_short,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--law", required=True, help="law file of a ladder")
    parser.add_argument("--out", required=True, type=Path, help="folder for the runs")
    parser.add_argument("data", nargs="+", help="dataset folders")
    args = parser.parse_args()
    law, _ = shape_of(lawfile.load(args.law))
    for folder in args.data:
        text = read(folder)
        short, long = rungs(text)
        loss, measured = (final_loss(rung, text, args.out) for rung in (short, long))
        epochs = long.tokens / text.tokens
        print(f"{folder}: {loss:.4f} and {measured:.4f} nats, read {epochs:.2f} times")
        for way, predicted in ways(law, text, short, long, loss).items():
            print(f"  {way:15s} {predicted:.4f}  {predicted / measured:.4f}")


if __name__ == "__main__":
    main()
