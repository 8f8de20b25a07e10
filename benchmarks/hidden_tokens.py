"""How much better than the frequency of tokens a run restores what is hidden.

  python benchmarks/hidden_tokens.py RUN

For a run with the objective `masked` or `spans`: the mean -log p of the same targets of held-out
text under the frequencies of such targets in the training split (plus one of each token), and under
the run's newest parameters. The sentinels of `spans` are targets too.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable

import numpy as np

from llm_jax.config import RunConfig, read_config
from llm_jax.data.batch import Rows
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.feed import held_out_batches, open_datasets
from llm_jax.train.load import load_run
from llm_jax.train.validation import Validation

COUNTED = 200
"""Batches of the training split whose targets are counted."""


def counts(batches: Iterable[Rows], vocabulary: int) -> np.ndarray:
    """How often each token is a target."""
    total = np.zeros(vocabulary)
    for batch in batches:
        targets = batch["targets"]
        total += np.bincount(targets[targets >= 0], minlength=vocabulary)
    return total


def main(folder: str) -> None:
    """Prints both losses."""
    config = dataclasses.replace(read_config(f"{folder}/run.json", RunConfig), out=folder)
    mesh, datasets = make_mesh(config.parallel), open_datasets(config)
    data, vocabulary = config.data, config.model.vocab_size
    rows = objective_of(config).rows(datasets[0].tokenizer)
    train = datasets[0].batches(
        split="train", seq_len=data.seq_len, batch_size=data.batch_size, seed=data.seed + 1
    )
    first = np.arange(data.batch_size)
    seen = counts((rows(train.at(i), first + i * len(first)) for i in range(COUNTED)), vocabulary)
    held = held_out_batches(datasets[0], config, mesh)
    whole = held.steps_per_epoch
    count = min(config.eval.batches * config.compute.accumulate, whole)
    wanted = counts((held.at(i * whole // count) for i in range(count)), vocabulary)
    log_p = np.log((seen + 1) / (seen + 1).sum())
    run = load_run(folder)
    measured = Validation(datasets, config, mesh).measure(run.params, lambda: False)
    assert measured is not None
    print(f"frequencies {-(wanted @ log_p) / wanted.sum():.4f} nats per hidden token")
    print(f"step {run.step} {measured['loss']:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    main(**vars(parser.parse_args()))
