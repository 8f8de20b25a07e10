"""Tokens per second of the data pipeline on one core.

    python benchmarks/data.py [DATASET] [--against N]

The reference reads the same windows in the same order from a flat memory map of the same tokens. It
is the least possible work: no file format and no prefetching. A mixture reads the dataset as three
sources, 50/30/20. All run in one process bound to one core, in turns. The figures are medians. For
a train step that consumes N tokens per second, `--against N` also prints the ratio of the
pipeline's rate to N.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llm_jax.data.batches import Batches, split_documents
from llm_jax.data.blend import Blend, shares_of
from llm_jax.data.build import BuildSpec, VocabSpec, build
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.mixed_batches import MixedBatches, Reading
from llm_jax.data.order import Order
from llm_jax.data.permutation import mix, permute, seed_key
from llm_jax.data.sources import StdlibSource


def pipeline_rate(batches: Batches, steps: int) -> float:
    """Tokens per second of `Batches.iterate`, including the start of its threads."""
    begin = time.perf_counter()
    with batches.iterate(0) as iterator:
        for _ in range(steps):
            next(iterator)
    return steps * batches.batch_size * batches.seq_len / (time.perf_counter() - begin)


def memmap_rate(batches: Batches, stream: np.memmap, steps: int) -> float:
    """Tokens per second of the same batches from a flat file."""
    length, marks = batches.seq_len, batches.dataset.tokenizer.marks
    begin = time.perf_counter()
    for step in range(steps):
        rows = step * batches.batch_size + np.arange(batches.batch_size)
        key = mix(seed_key(batches.seed or 0) + (rows // batches.windows).astype(np.uint64))
        window = permute(rows % batches.windows, batches.windows, key)
        tokens = stream[(window * length)[:, None] + np.arange(length + 1)].astype(np.int32)
        split_documents(tokens, marks)
    return steps * batches.batch_size * length / (time.perf_counter() - begin)


def flatten(dataset: TokenDataset, path: Path) -> np.memmap:
    """The training split as one flat file."""
    with path.open("wb") as file:
        for number in range(-(-dataset.num_tokens("train") // dataset.info["record_tokens"])):
            (tokens,) = dataset.records("train", [number])
            tokens.tofile(file)
    return np.memmap(path, tokens.dtype, mode="r")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", nargs="?", help="dataset folder (default: built from stdlib)")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=float, help="tokens/s of a train step")
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(args.dataset or Path(scratch, "stdlib"))
        if not args.dataset:
            print("building the stdlib dataset", file=sys.stderr)
            spec = BuildSpec(sources=(StdlibSource(),), tokenizer=VocabSpec(vocab_size=4096))
            build(spec, path, lambda phase, done, total: None)
        dataset = TokenDataset.open(path)
        stream = flatten(dataset, Path(scratch, "flat"))
        batches = Batches(
            dataset, split="train", seq_len=args.seq_len, batch_size=args.batch_size, seed=0
        )
        steps = -(-4_000_000 // (args.batch_size * args.seq_len))
        order = Order(dataset.num_tokens("train"), args.seq_len, 0)
        reading = Reading(Blend(shares_of([50, 30, 20])), (order,) * 3, (0, 0, 0))
        mixture = MixedBatches(
            [dataset] * 3, reading, seq_len=args.seq_len, batch_size=args.batch_size, seed=0
        )
        measures: dict[str, Callable[[], float]] = {
            "pipeline": lambda: pipeline_rate(batches, steps),
            "mixture": lambda: pipeline_rate(mixture, steps),
            "memory map": lambda: memmap_rate(batches, stream, steps),
        }
        rates: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(args.rounds):
            for name, measure in measures.items():
                rates[name].append(measure())
    median = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        print(f"{name:<12}{median[name]:>14,.0f} tokens/s   ({spread})")
    print(f"{'ratio':<12}{median['pipeline'] / median['memory map']:>14.2f}")
    print(f"{'of three':<12}{median['mixture'] / median['pipeline']:>14.2f} of one")
    if args.against:
        print(
            f"{'feeds':<12}{median['pipeline'] / args.against:>14.1f} × {args.against:,.0f} tok/s"
        )


if __name__ == "__main__":
    main()
