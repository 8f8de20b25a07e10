"""The flags of `plan`, and the words in which people say durations, ranges, chips and sources."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from llm_jax.commands import count, number
from llm_jax.config import UserError
from llm_jax.facts.prices import PRICINGS

DATA = "data/stdlib"
HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0, "w": 168.0}
"""First letter of a unit of time → hours."""
DURATION = re.compile(r"(an?|one|[\d.,]+)?\s*(m|min|minutes?|h|hours?|d|days?|w|weeks?)?", re.I)
A_DECADE = 2
"""Points of a curve for each factor of ten: 1, 3.2, 10."""
MOST_POINTS = 13


def duration(text: str) -> float:
    """Hours from `7d`, `30 days`, `12h`, `a week`, or a number of hours."""
    found = DURATION.fullmatch(text.strip())
    amount, unit = found.groups() if found else (None, None)
    if amount is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a duration: write 30d, 2w, 12h, or a number of hours"
        )
    size = 1.0 if amount.lower() in ("a", "an", "one") else number(amount)
    return size * HOURS[unit[0].lower() if unit else "h"]


def amounts(read: Callable[[str], float]) -> Callable[[str], float | tuple[float, ...]]:
    """Reads one budget, or from `low:high` the budgets of a curve."""

    def read_one_or_range(text: str) -> float | tuple[float, ...]:
        if ":" not in text:
            return read(text)
        low, high = (read(end) for end in text.split(":", 1))
        if not 0 < low < high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a range: write low:high, such as 1k:1M"
            )
        decades = math.log10(high / low)
        points = max(3, min(MOST_POINTS, 1 + round(A_DECADE * decades)))
        return tuple(low * (high / low) ** (i / (points - 1)) for i in range(points))

    read_one_or_range.__name__ = "budget"
    return read_one_or_range


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_budget(parser)
    _add_machine(parser)
    _add_price(parser)
    _add_model(parser)
    _add_text(parser)
    _add_serving(parser)
    _add_output(parser)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    budget = parser.add_argument_group(
        "budget (one of, or --tokens with --params, --config or --from); low:high draws a curve"
    )
    budget.add_argument("--flops", type=amounts(number), help="training FLOPs, such as 1e22")
    budget.add_argument("--usd", type=amounts(number), help="US dollars, such as 100k, or 1k:1M")
    budget.add_argument("--chip-hours", type=amounts(number), help="chips × hours")
    budget.add_argument(
        "--deadline", "--deadline-hours", type=amounts(duration), dest="deadline_hours",
        metavar="TIME", help="wall time, such as 30d, 2w, 12h, or a number of hours; needs a "
        "number of chips",
    )  # fmt: skip
    budget.add_argument("--loss", type=number, help="the cheapest run that the law says reaches "
                        "this loss, in nats per token")  # fmt: skip


def _add_machine(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("machine")
    machine.add_argument("--chip", default="v5p", help="v4, v5e, v5p, v6e, tpu7x, a100, h100, "
                         "h200, b200; a slice such as v5e-64 or 8xh100; or local: this machine, "
                         "measured (default: v5p)")  # fmt: skip
    machine.add_argument(
        "--chips", type=count, help="number of chips (default: chosen by the planner)"
    )
    machine.add_argument(
        "--compare", type=_chips, default=(), metavar="CHIPS", help="the same run on these chips "
        "too, such as v5e,v5p,h100"
    )  # fmt: skip
    machine.add_argument(
        "--calibrate", nargs="+", type=Path, default=[], metavar="RUN", help="learn the chip's "
        "speed from runs of yours on --chips chips; later plans use it"
    )  # fmt: skip
    machine.add_argument("--remeasure", action="store_true", help="measure `local` again")
    machine.add_argument("--failures-per-chip-day", type=number, metavar="RATE", help="failures of "
                         "one chip in a day (default: 4.7e-4, Llama 3 405B)")  # fmt: skip
    machine.add_argument("--restart-minutes", type=number, metavar="MINUTES", help="from a failure "
                         "to training again (default: 10)")  # fmt: skip
    machine.add_argument(
        "--restart-overhead",
        type=number,
        help="share of time lost to restarts (default: by the failures; 0 for local)",
    )


def _add_price(parser: argparse.ArgumentParser) -> None:
    price = parser.add_argument_group("price and power")
    price.add_argument("--pricing", choices=PRICINGS, default="on-demand",
                       help="which price of a chip-hour is paid (default: on-demand)")  # fmt: skip
    price.add_argument("--prices", type=Path, metavar="FILE", help="prices with their sources and "
                       "dates, as JSON (default: those that are shipped)")  # fmt: skip
    price.add_argument(
        "--usd-per-hour", type=number, help="price per chip-hour (default: that of --prices)"
    )
    price.add_argument(
        "--spot-discount",
        type=number,
        default=0.0,
        help="share of the on-demand price that spot machines save (default: 0)",
    )
    price.add_argument("--watts", type=number, help="power per chip (default: as published)")
    price.add_argument(
        "--pue",
        type=number,
        default=1.1,
        help="power usage effectiveness of the data centre (default: 1.1)",
    )
    price.add_argument(
        "--carbon",
        type=number,
        default=0.48,
        help="kg CO2e per kWh (default: 0.48, the world in 2023)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("model")
    what.add_argument(
        "--config", metavar="MODEL", help="a model that exists: a recipe, a run.json, a run's "
        "folder, a Hugging Face folder or its config.json",
    )  # fmt: skip
    what.add_argument("--from", dest="weights", metavar="MODEL", help="the same, and training "
                      "begins with its weights")  # fmt: skip
    what.add_argument("--extend", type=count, metavar="LENGTH", help="then a second stage with "
                      "sequences of this many tokens, such as 131072")  # fmt: skip
    what.add_argument(
        "--extend-tokens", type=number, metavar="TOKENS", help="tokens of that stage, such as 50B"
    )
    what.add_argument("--law", help="scaling law, by name or file (default: besiroglu-2024; for "
                      "family moe ludziejewski-2025-e4)")  # fmt: skip
    what.add_argument("--law-only", action="store_true", help="print only the law's optimum")
    what.add_argument("--family", help="llama, qwen, moe, gpt2 (default: the law file's, or llama)")
    what.add_argument("--params", type=number, help="fix the number of parameters, such as 7B")
    what.add_argument("--seq-len", type=count, help="tokens per sequence (default: the config's or "
                      "the law file's, or by size)")  # fmt: skip
    what.add_argument("--vocab-size", type=count, help="vocabulary size (default: that of "
                      "--data, of the law file, or of the family)")  # fmt: skip
    what.add_argument("--batch-tokens", type=number, help="tokens per step (default: the config's, "
                      "or by --rule)")  # fmt: skip
    what.add_argument("--quantize", choices=("none", "int8", "fp8"), help="8-bit operands in the "
                      "forward pass (default: the config's, or none)")  # fmt: skip
    what.add_argument(
        "--rule",
        help="rule for batch size and learning rate: step-law, deepseek, olmo, nanochat, small "
        "(default: the law file's, or step-law, or small below 5M parameters)",
    )


def _add_text(parser: argparse.ArgumentParser) -> None:
    text = parser.add_argument_group("text")
    text.add_argument("--tokens", type=number, help="fix the number of training tokens, such as 1T")
    text.add_argument("--unique-tokens", type=number, help="tokens of text that exist; a run of "
                      "more tokens repeats them (default: the number in --data)")  # fmt: skip
    text.add_argument("--source", action="append", type=_source, default=[],
                      metavar="NAME=TOKENS:SHARE", help="one of several texts: its unique tokens, "
                      "and its share of the run, such as ja=20B:0.3; repeat it")  # fmt: skip
    text.add_argument("--mixture", metavar="FILE", help="the run reads this mixture, as data mix "
                      "writes it, in place of --data")  # fmt: skip
    text.add_argument("--inference-tokens", type=number, default=0.0, help="tokens to serve "
                      "over the model's life, paid from the budget (default: 0)")  # fmt: skip


def _add_serving(parser: argparse.ArgumentParser) -> None:
    serve = parser.add_argument_group("serving cost, with --inference-tokens")
    serve.add_argument("--serve-chip", help="chip that serves the model; served tokens are "
                       "weighted by its price and utilisation (default: not weighted)")  # fmt: skip
    serve.add_argument(
        "--serve-usd-per-hour",
        type=number,
        help="price per chip-hour for serving (default: the on-demand price)",
    )
    serve.add_argument("--prompt-share", type=number, default=0.5, help="share of prompts in the "
                       "served tokens (default: 0.5)")  # fmt: skip
    serve.add_argument("--prefill-mfu", type=number, default=0.5, help="MFU of the serving chip "
                       "while it reads prompts (default: 0.5)")  # fmt: skip
    serve.add_argument("--decode-mfu", type=number, default=0.01, help="MFU of the serving chip "
                       "while it generates (default: 0.01)")  # fmt: skip


def _add_output(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("output")
    out.add_argument("--write", type=Path, metavar="RUN.JSON", help="write the run's config here, "
        "and the prediction beside it")  # fmt: skip
    out.add_argument("--anyway", action="store_true", help="write a run although the plan says "
        "that it is not worth its budget")  # fmt: skip
    out.add_argument("--report", type=Path, metavar="PLAN.HTML", help="write a self-contained page")
    out.add_argument(
        "--verify", action="store_true", help="compile the plan's train step for its TPUs"
    )
    out.add_argument("--name", default="planned", help="name of the run (default: planned)")
    out.add_argument("--data", help="dataset folder; if it exists, the plan uses its vocabulary "
                     f"and number of tokens (default: {DATA}, not read)")  # fmt: skip
    out.add_argument("--out", help="folder of the run in RUN.JSON (default: runs/NAME)")


def _chips(text: str):
    from llm_jax.facts.hardware import chip

    try:
        return tuple(chip(name) for name in text.split(","))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _source(text: str):
    from llm_jax.plan.limited_text import Source

    name, _, rest = text.partition("=")
    unique, _, share = rest.partition(":")
    if not (name and unique and share):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a source: write NAME=TOKENS:SHARE, such as ja=20B:0.3"
        )
    return Source(name=name, unique=number(unique), share=number(share))
