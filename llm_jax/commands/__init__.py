"""One module per verb of `llm-jax`, imported only when that verb runs.

A verb's module has a docstring whose first line is its help, and three functions:

  `add_arguments(parser)`   declares flags on an `argparse` parser;
  `run(args) -> dict`       does the work; the dict is what `--json` prints;
  `text(result) -> str`     formats the same result for a person.

It may also have `environment() -> dict`: variables that must be set when the program starts. A
module with `OVERRIDES = True` takes a CONFIG: `args.overrides` holds the flags of config fields,
`args.flags` the names of the verb's own flags. One with `COMPILES = True` runs JAX programs, which
are kept between starts (`compile_cache.py`).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from llm_jax.config.errors import MOST_SEED

TOKENIZER_HELP = "tokenizer.model, tokenizer.json, or a folder with one (dataset, run, model)"
SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def number(text: str) -> float:
    """A finite number as people write it: `5.76e23`, `70B`, `1.4T`, `8,192`."""
    plain = text.strip().replace(",", "").replace("_", "")
    scale = SUFFIXES.get(plain[-1:].upper(), 1.0)
    try:
        value = float(plain[:-1] if scale != 1.0 else plain) * scale
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a finite number: write 5.76e23, 70B or 1.4T"
        )
    return value


def count(text: str) -> int:
    """A whole number above 0 written as in `number`."""
    value = number(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(value)


def count_up_to(most: int) -> Callable[[str], int]:
    """Reads a whole number from 1 to `most`."""

    def limited(text: str) -> int:
        value = count(text)
        if value > most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most:,}")
        return value

    return limited


bootstraps = count_up_to(100_000)
"""Bootstrap draws, which must fit in memory."""
pieces = count_up_to(2**31 - 1)
"""A vocabulary size: SentencePiece counts in an int32."""
ngram_order = count_up_to(20)
"""Longer grams hardly occur twice in natural text, and each order costs 60 bytes per token."""


def seed(text: str) -> int:
    """A seed that NumPy and JAX accept."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= MOST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MOST_SEED:,}")
    return value


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint a verb reads, and how carefully."""
    parser.add_argument(
        "--step", type=int, metavar="N", help="step of the checkpoint (default: the newest)"
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="do not check the checkpoint's files against their checksums",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="run the Python code that the run's model.kind names, if it is not a part of ours",
    )


def add_tensor_argument(parser: argparse.ArgumentParser) -> None:
    """How the model is split over the devices of this process."""
    parser.add_argument(
        "--tensor",
        type=count,
        metavar="N",
        help="devices that share each matrix; groups of N divide the texts (default: the fewest "
        "whose memory is enough; on CPUs one device in all)",
    )


def add_draft_arguments(parser: argparse.ArgumentParser) -> None:
    """How tokens are drafted that the model checks together."""
    parser.add_argument(
        "--draft",
        metavar="RUN",
        help="smaller model of the same tokenizer that drafts tokens: a run, RUN@STEP, or a "
        "Hugging Face folder",
    )
    parser.add_argument(
        "--speculate",
        type=count_up_to(16),
        metavar="N",
        help="tokens drafted at a time (default: 4 with --draft, otherwise none; without --draft "
        "they are looked up in the text so far)",
    )


def compared(result: dict[str, Any]) -> str:
    """How far the logits are from those of transformers, or why they were not compared."""
    difference = result["max_logit_difference"]
    if difference is None:
        return f"logits were not compared ({result['not_compared']})"
    return f"largest logit difference from transformers {difference:.2g}"
