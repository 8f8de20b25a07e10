"""An encoder-decoder learns to write numbers or dates out; what it makes of those it has not seen.

  python benchmarks/pairs.py DATASET OUT --task dates --model t5

Tasks: numbers in English words ("40213" → "forty thousand two hundred thirteen"), and dates in
English and Japanese ("en 2024-03-05" → "March 5, 2024", "ja 2024-03-05" → "令和六年三月五日").
Models: a T5, and of about as many parameters an LSTM with attention and an original Transformer,
the latter with the schedule and the label smoothing of its paper. DATASET is any dataset of
`llm-jax data build`: only its tokenizer matters. The objectives below are ones of your own, as
`docs/how-to/own-objective.md` describes: they put pairs of their own in the place of the packed
text. A tenth of the numbers up to a million, or of the days of two centuries, is held out, chosen
by a checksum.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EncoderDecoderConfig,
    EvalConfig,
    OptimConfig,
    RecurrentEncoderDecoderConfig,
    RunConfig,
    SourceToTarget,
    TransformerEncoderDecoderConfig,
)
from llm_jax.data.batch import Rows
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.sentinels import start_id
from llm_jax.objectives.next_token import loss
from llm_jax.objectives.objective import Objective, Prepare
from llm_jax.objectives.spans import pair_arrays, pair_rows

Pair = tuple[str, str]
"""Source and target."""
S, T, ASKED = 16, 48, 256
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
SMALL = [*ONES.split(" "), "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
ERAS = (  # the first day of each
    (datetime.date(2019, 5, 1), "令和"),
    (datetime.date(1989, 1, 8), "平成"),
    (datetime.date(1926, 12, 25), "昭和"),
    (datetime.date(1912, 7, 30), "大正"),
    (datetime.date(1868, 10, 23), "明治"),
)
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


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


def kanji(number: int) -> str:
    """`number` from 1 to 99 in Japanese."""
    tens, ones = divmod(number, 10)
    return (
        ("" if tens < 2 else "〇一二三四五六七八九"[tens])
        + "十" * (tens > 0)
        + ("〇一二三四五六七八九"[ones] if ones else "")
    )


def english(day: datetime.date) -> str:
    """Such as "March 5, 2024"."""
    return f"{MONTHS[day.month - 1]} {day.day}, {day.year}"


def japanese(day: datetime.date) -> str:
    """Such as "令和六年三月五日"; an era's first year is 元年."""
    first, era = next(pair for pair in ERAS if day >= pair[0])
    year = day.year - first.year + 1
    count = "元" if year == 1 else kanji(year)
    return f"{era}{count}年{kanji(day.month)}月{kanji(day.day)}日"


def held_out(text: str) -> bool:
    """Whether training never sees `text`, a number or a date."""
    return zlib.crc32(text.encode()) % 10 == 0


def number_pair(draw: np.random.Generator, digits: int | None) -> Pair:
    """Of so many digits; None: as many numbers of each length, or nearly all would have six."""
    if digits is None:
        number = int(10 ** (6 * draw.random()))
    else:
        number = int(draw.integers(10 ** (digits - 1), 10**digits))
    return str(number), words(number)


def date_pair(draw: np.random.Generator, language: str | None) -> Pair:
    """In `en` or `ja`; None: in one of them."""
    day = FIRST + datetime.timedelta(int(draw.integers((LAST - FIRST).days + 1)))
    language = language or ("en", "ja")[draw.integers(2)]
    return f"{language} {day}", english(day) if language == "en" else japanese(day)


@dataclass(frozen=True)
class Task:
    """Pairs to learn.

    Attributes:
      pair: draws a pair, of a group if one is given.
      groups: label → a group that is asked for on its own.
    """

    pair: Callable[[np.random.Generator, Any], Pair]
    groups: dict[str, Any]

    def drawn(self, draw: np.random.Generator, group: Any, held: bool) -> Pair:
        """A pair of the group that is held out, or one that is not."""
        while True:
            source, target = self.pair(draw, group)
            if held_out(source.split(" ")[-1]) == held:
                return source, target


TASKS = {
    "numbers": Task(number_pair, {f"{digits} digits": digits for digits in (3, 4, 5, 6)}),
    "dates": Task(date_pair, {"English dates": "en", "Japanese dates": "ja"}),
}


def source_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids that the encoder reads."""
    return [*tokenizer.encode(text), tokenizer.eos_id]


def _objective(config: RunConfig, task: Task) -> Objective:
    model = config.model
    assert isinstance(model, SourceToTarget)

    def with_tokenizer(tokenizer: Tokenizer) -> Prepare:
        def prepare(packed: Rows, places: np.ndarray) -> Rows:
            draws = (
                np.random.Generator(np.random.Philox(key=[config.data.seed, place]))
                for place in places.tolist()
            )
            chosen = [task.drawn(draw, None, held=False) for draw in draws]
            ids = [(source_ids(tokenizer, a), source_ids(tokenizer, b)) for a, b in chosen]
            sources, targets = (
                [np.array(row, np.int32) for row in part] for part in zip(*ids, strict=True)
            )
            start = start_id(tokenizer, model)
            return pair_rows(sources, targets, S, T, start, start)

        return prepare

    return Objective(loss, pair_arrays(S, T), with_tokenizer=with_tokenizer)


def numbers(config: RunConfig) -> Objective:
    """Pairs of a number in digits and in words."""
    return _objective(config, TASKS["numbers"])


def dates(config: RunConfig) -> Objective:
    """Pairs of a date in digits and in English or Japanese."""
    return _objective(config, TASKS["dates"])


def model_of_kind(kind: str, vocabulary: int) -> Any:
    """The architecture, of about 0.9 M parameters with a tokenizer of 4,096 pieces."""
    size = -(-(vocabulary + 100) // 128) * 128
    if kind == "lstm":
        return RecurrentEncoderDecoderConfig(
            vocab_size=size, num_layers=1, num_decoder_layers=1, d_model=128, max_seq_len=64
        )
    if kind == "transformer":
        return TransformerEncoderDecoderConfig(
            vocab_size=size,
            num_layers=2,
            num_decoder_layers=2,
            d_model=96,
            num_heads=4,
            d_ff=288,
            max_seq_len=64,
        )
    return EncoderDecoderConfig(
        vocab_size=size,
        num_layers=2,
        num_decoder_layers=2,
        d_model=96,
        num_heads=4,
        head_dim=24,
        d_ff=192,
        max_seq_len=64,
    )


def config_of(dataset: str, out: str, task: str, model: Any, steps: int) -> RunConfig:
    """The run."""
    rate = 5e-3 if model.kind == "recurrent_encoder_decoder" else 3e-3
    optim = OptimConfig(learning_rate=rate, warmup_steps=min(100, steps // 2), final_fraction=0.02)
    if model.kind == "transformer_encoder_decoder":  # as in the paper
        optim = dataclasses.replace(optim, schedule="inverse_sqrt", b2=0.98, label_smoothing=0.1)
    return RunConfig(
        name=f"{task}-{model.kind}",
        out=out,
        steps=steps,
        objective=f"{Path(__file__).resolve()}:{task}",
        log_every=100,
        model=model,
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(path=dataset, seq_len=64, batch_size=64),
        optim=optim,
        checkpoint=CheckpointConfig(every=steps),
        eval=EvalConfig(every=steps, batches=4),
    )


def exact(folder: str, task: Task, asked: int = ASKED) -> dict[str, float]:
    """Group → share of its held-out sources whose greedy target is exact."""
    from llm_jax.infer.decoder import compute_for_inference
    from llm_jax.infer.sources_to_targets import Writer, greedy, prepared
    from llm_jax.train.load import load_run

    run = load_run(folder, trust_code=True)
    model, tokenizer = run.config.model, run.tokenizer
    assert isinstance(model, SourceToTarget)
    compute = compute_for_inference(run.config.compute)
    params = prepared(run.params, model, compute)
    writer = Writer(
        model, compute, tokenizer.vocab_size, start_id(tokenizer, model), (tokenizer.eos_id,)
    )
    draw, shares = np.random.default_rng(0), {}
    for label, group in task.groups.items():
        pairs = [task.drawn(draw, group, held=True) for _ in range(asked)]
        sources = [source_ids(tokenizer, source) for source, _ in pairs]
        made = greedy(params, writer, sources, max_tokens=T)
        right = [
            tokenizer.decode(one.ids) == target
            for (_, target), one in zip(pairs, made, strict=True)
        ]
        shares[label] = float(np.mean(right))
    return shares


def main(dataset: str, out: str, task: str, model: str, steps: int) -> None:
    """Trains, and prints the share of held-out sources that come out exact."""
    from llm_jax.data.dataset import TokenDataset
    from llm_jax.train.loop import train

    architecture = model_of_kind(model, TokenDataset.open(dataset).tokenizer.vocab_size)
    train(config_of(dataset, out, task, architecture, steps))
    for label, share in exact(out, TASKS[task]).items():
        print(f"{label}: {share:.1%} of {ASKED} that were held out are exact")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="folder of a dataset, for its tokenizer")
    parser.add_argument("out", help="new folder of the run")
    parser.add_argument("--task", choices=tuple(TASKS), default="dates")
    parser.add_argument("--model", choices=("t5", "lstm", "transformer"), default="t5")
    parser.add_argument("--steps", type=int, default=1500)
    main(**vars(parser.parse_args()))
