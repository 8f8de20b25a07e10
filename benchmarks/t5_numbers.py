"""A T5 learns to write numbers out in words; what it makes of numbers that it has not seen.

  python benchmarks/t5_numbers.py DATASET OUT

DATASET is any dataset of `llm-jax data build`: only its tokenizer matters. The objective below is
one of your own, as `docs/how-to/own-objective.md` describes: it puts pairs of its own in the place
of the packed text. A tenth of the numbers up to a million, chosen by a checksum, is held out.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EncoderDecoderConfig,
    EvalConfig,
    OptimConfig,
    RunConfig,
)
from llm_jax.data.batch import Rows
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.sentinels import start_id
from llm_jax.objectives.next_token import loss
from llm_jax.objectives.objective import Objective, Prepare
from llm_jax.objectives.spans import pair_arrays, pair_rows

MOST, S, T = 1_000_000, 16, 48
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
SMALL = [*ONES.split(" "), "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def words(number: int) -> str:
    """`number` below a million in English."""
    if number >= 1000:
        rest = f" {words(number % 1000)}" if number % 1000 else ""
        return f"{words(number // 1000)} thousand{rest}"
    if number >= 100:
        rest = f" {words(number % 100)}" if number % 100 else ""
        return f"{SMALL[number // 100]} hundred{rest}"
    if number < 20:
        return SMALL[number]
    return TENS[number // 10 - 2] + (f" {SMALL[number % 10]}" if number % 10 else "")


def held_out(number: int) -> bool:
    """Whether training never sees `number`."""
    return zlib.crc32(str(number).encode()) % 10 == 0


def source(tokenizer: Tokenizer, number: int) -> list[int]:
    """The ids that the encoder reads."""
    return [*tokenizer.encode(str(number)), tokenizer.eos_id]


def numbers(config: RunConfig) -> Objective:
    """Pairs of a number in digits and in words."""

    def with_tokenizer(tokenizer: Tokenizer) -> Prepare:
        def prepare(packed: Rows, places: np.ndarray) -> Rows:
            chosen = []
            for place in places.tolist():
                draw = np.random.Generator(np.random.Philox(key=[config.data.seed, place]))
                # As many numbers of each length, or nearly all would have six digits.
                number = int(10 ** (6 * draw.random()))
                while held_out(number):
                    number = int(10 ** (6 * draw.random()))
                chosen.append(number)
            ends = [tokenizer.eos_id]
            sources = [np.array(source(tokenizer, n), np.int32) for n in chosen]
            targets = [np.array(tokenizer.encode(words(n)) + ends, np.int32) for n in chosen]
            start = start_id(tokenizer)
            return pair_rows(sources, targets, S, T, start, start)

        return prepare

    return Objective(loss, pair_arrays(S, T), with_tokenizer=with_tokenizer)


def config_of(dataset: str, out: str, steps: int, vocabulary: int) -> RunConfig:
    """The run."""
    return RunConfig(
        name="numbers",
        out=out,
        steps=steps,
        objective=f"{Path(__file__).resolve()}:numbers",
        log_every=100,
        model=EncoderDecoderConfig(
            vocab_size=-(-(vocabulary + 100) // 128) * 128,
            num_layers=2,
            num_decoder_layers=2,
            d_model=96,
            num_heads=4,
            head_dim=24,
            d_ff=192,
            max_seq_len=64,
        ),
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(path=dataset, seq_len=64, batch_size=64),
        optim=OptimConfig(learning_rate=3e-3, warmup_steps=100, final_fraction=0.02),
        checkpoint=CheckpointConfig(every=steps),
        eval=EvalConfig(every=steps, batches=4),
    )


def main(dataset: str, out: str, steps: int) -> None:
    """Trains, and prints the share of held-out numbers that come out exact."""
    from llm_jax.data.dataset import TokenDataset
    from llm_jax.infer.decoder import compute_for_inference
    from llm_jax.infer.sources_to_targets import Writer, greedy, prepared
    from llm_jax.train.load import load_run
    from llm_jax.train.loop import train

    tokenizer = TokenDataset.open(dataset).tokenizer
    config = config_of(dataset, out, steps, tokenizer.vocab_size)
    train(config)
    run, model = load_run(out), config.model
    assert isinstance(model, EncoderDecoderConfig)
    compute = compute_for_inference(config.compute)
    params = prepared(run.params, model, compute)
    writer = Writer(model, compute, tokenizer.vocab_size, start_id(tokenizer), (tokenizer.eos_id,))
    draw = np.random.default_rng(0)
    for digits in (3, 4, 5, 6):
        asked = [n for n in draw.integers(10 ** (digits - 1), 10**digits, 4000) if held_out(n)]
        made = greedy(params, writer, [source(tokenizer, n) for n in asked[:256]], max_tokens=T)
        right = [
            tokenizer.decode(one.ids) == words(int(n))
            for n, one in zip(asked[:256], made, strict=True)
        ]
        print(f"{digits} digits: {np.mean(right):.1%} of {len(right)} held-out numbers are exact")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="folder of a dataset, for its tokenizer")
    parser.add_argument("out", help="new folder of the run")
    parser.add_argument("--steps", type=int, default=1500)
    main(**vars(parser.parse_args()))
