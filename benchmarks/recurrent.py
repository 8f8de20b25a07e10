"""Loss by the tokens before it: Transformers and LSTMs of the same sizes on the same text.

    python benchmarks/recurrent.py --out DIR DATA

DATA is a dataset of `llm-jax data build --vocab-size 4096`. The runs are the diagonal of
`llm-jax ladder --flops 2e13`, of families `qwen` and `lstm`: three sizes, each with the same tokens
for both. Finished runs in DIR are kept. Printed is the validation loss in nats by the number of
tokens of the same document before the target; DIR/recurrent.png draws it (Kaplan et al. 2020,
figure 7).
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.commands.recorded_runs import train
from llm_jax.config import RunConfig
from llm_jax.data.dataset import TokenDataset
from llm_jax.models.protocol import context_of, model_of
from llm_jax.objectives.log_probs import token_log_probs
from llm_jax.plan.dataset_text import read
from llm_jax.plan.ladder_runs import LadderRequest, plan_ladder
from llm_jax.plan.this_machine import local_chip
from llm_jax.train.load import load_run

FLOPS = 2e13
EDGES = (0, 1, 3, 10, 30, 100, 200, 512)
"""Bounds of the printed ranges of tokens before the target."""
BATCHES = 24


def runs(data: str, out: Path) -> dict[str, list[RunConfig]]:
    """The diagonals of the two ladders. The LSTM reads as many tokens as the Transformer, in the
    same batches, with the learning rate of its own ladder."""
    found: dict[str, list[RunConfig]] = {}
    for family in ("qwen", "lstm"):
        request = LadderRequest(text=read(data), chip=local_chip(), flops=FLOPS, family=family)
        rungs = sorted(plan_ladder(request), key=lambda rung: (rung.params, rung.tokens))
        found[family] = [rungs[place].config for place in (0, 4, 8)]
    made: dict[str, list[RunConfig]] = {"qwen": [], "lstm": []}
    for transformer, lstm in zip(found["qwen"], found["lstm"], strict=True):
        made["qwen"].append(replace(transformer, out=str(out / f"qwen-{transformer.name}")))
        name = f"{lstm.name.split('-')[0]}-{transformer.name.split('-')[1]}"
        optim = replace(transformer.optim, learning_rate=lstm.optim.learning_rate)
        same = replace(transformer, model=lstm.model, optim=optim, name=name)
        made["lstm"].append(replace(same, out=str(out / f"lstm-{name}")))
    return made


def losses(config: RunConfig, seq_len: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the losses and number of targets by tokens before them, (seq_len + 1,) each."""
    loaded, dataset = load_run(Path(config.out)), TokenDataset.open(Path(config.data.path))
    family, model = model_of(config.model), config.model

    @jax.jit
    def nats(params: Any, batch: Any) -> jax.Array:
        hidden = family.forward(params, batch, model, context_of(config))
        return -token_log_probs(hidden.x_BTD, family.unembedding(params, model), batch["targets"])

    total, count = np.zeros(seq_len + 1), np.zeros(seq_len + 1)
    batches = dataset.batches(split="validation", seq_len=seq_len, batch_size=8, seed=None)
    for number in range(min(BATCHES, batches.steps_per_epoch)):
        batch = batches.at(number)
        loss = np.asarray(nats(loaded.params, {name: batch[name] for name in batch}))
        begins = np.maximum.accumulate(
            np.where(np.diff(batch["segments"], axis=1, prepend=-1) != 0, np.arange(seq_len), 0),
            axis=1,
        )
        before = np.arange(seq_len) - begins + 1
        counted = batch["targets"] >= 0
        np.add.at(total, before[counted], loss[counted])
        np.add.at(count, before[counted], 1)
    return total, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    args = parser.parse_args()
    made = runs(args.data, args.out)
    ranges = list(itertools.pairwise(EDGES))
    print(f"{'':24}" + "".join(f"{f'{a + 1}-{b}':>9}" for a, b in ranges) + f"{'all':>9}")
    curves: dict[str, np.ndarray] = {}
    for family, configs in made.items():
        for config in configs:
            train(config, f"{family} {config.name}")
            total, count = losses(config)
            means = [total[a + 1 : b + 1].sum() / count[a + 1 : b + 1].sum() for a, b in ranges]
            label = f"{family} {config.name}"
            curves[label] = np.array(means)
            shown = "".join(f"{mean:9.3f}" for mean in [*means, total.sum() / count.sum()])
            print(f"{label:24}{shown}", flush=True)
    for transformer, lstm in zip(made["qwen"], made["lstm"], strict=True):
        apart = curves[f"lstm {lstm.name}"] - curves[f"qwen {transformer.name}"]
        print(f"{'lstm - qwen':24}" + "".join(f"{value:+9.3f}" for value in apart))
    draw(curves, ranges, args.out / "recurrent.png")


def draw(curves: dict[str, np.ndarray], ranges: list[tuple[int, int]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    middles = [np.sqrt((a + 1) * b) for a, b in ranges]
    for number, (label, values) in enumerate(curves.items()):
        colour = "tab:orange" if label.startswith("lstm") else "tab:blue"
        axes.plot(middles, values, "o-", color=colour, alpha=0.4 + 0.3 * (number % 3), label=label)
    axes.set(xscale="log", xlabel="tokens of the document so far", ylabel="loss (nats per token)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
