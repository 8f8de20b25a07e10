"""The input of a plan, and the checks of its values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from llm_jax.config import UserError
from llm_jax.config.training import Quantize
from llm_jax.facts.calibration import calibration
from llm_jax.facts.hardware import CHIPS, Chip
from llm_jax.facts.prices import Prices, Pricing, Quote, shipped
from llm_jax.laws.law import Law, Parametric, Recipe
from llm_jax.plan.given import Given
from llm_jax.plan.limited_text import Source, one_source
from llm_jax.plan.no_run import NoRun
from llm_jax.plan.objectives import inference_weight
from llm_jax.plan.own_speed import OwnSpeed
from llm_jax.plan.restarts import FAILURES_PER_CHIP_DAY, RESTART_MINUTES

BudgetKind = Literal["flops", "usd", "chip-hours"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The input of a plan."""

    budget: BudgetKind
    amount: float
    """FLOPs (6·N·D, or exact), US dollars or chip-hours, by `budget`."""
    chip: Chip
    law: Law
    chips: int | None = None
    """Number of chips; None: the planner chooses."""
    family: str = "llama"
    given: Given | None = None
    """A model that exists. None: the planner chooses the architecture."""
    params: float | None = None
    """Fixed size (total parameters). None: the law's optimum."""
    tokens: float | None = None
    """Fixed number of training tokens. None: what the budget pays for."""
    fixed: bool = False
    """`params` and `tokens` are both given, and are the budget; `amount` is 6·N·D."""
    unique_tokens: float | None = None
    """Different tokens that exist. None: no limit."""
    sources: tuple[Source, ...] = ()
    """Several texts with shares that add up to 1, in place of `unique_tokens`."""
    inference_tokens: float = 0.0
    """Tokens to be served in the model's life. The same budget pays for their FLOPs, at the price
    of training FLOPs; `at_serving_price` applies the price of serving."""
    serving: str = ""
    """The relative cost of serving as a sentence, if `at_serving_price` was applied."""
    seq_len: int | None = None
    """Tokens per sequence. None: by model size."""
    vocab_size: int | None = None
    """None: the family's own, or a smaller one."""
    batch_tokens: float | None = None
    """Tokens per step. None: by `rule`."""
    rule: str | None = None
    """Rule for batch and learning rate, as in `hyperparameters.RULES`. None: by model size."""
    quantize: Quantize = "none"
    """`compute.quantize` of the run."""
    speed: OwnSpeed | None = None
    """What your own runs say of the chip."""
    usd_per_hour: float | None = None
    """US dollars per chip-hour. None: the price in `prices`, if known."""
    prices: Prices = field(default_factory=shipped)
    pricing: Pricing = "on-demand"
    """Which of the chip's prices is paid."""
    spot_discount: float = 0.0
    """Share of the price that is saved."""
    restart_overhead: float | None = None
    """Share of time lost to restarts and lost steps. None: what the failures cost (`restarts.py`);
    0 for a CPU."""
    failures_per_chip_day: float = FAILURES_PER_CHIP_DAY
    restart_minutes: float = RESTART_MINUTES
    """From a failure to training again."""
    watts: float | None = None
    """Watts per chip. None: the chip's, if its maker has published it."""
    pue: float = 1.1
    """Energy of the data centre, relative to that of the chips (Google's fleet, 2023)."""
    carbon: float = 0.48
    """kg CO₂e per kWh (world average of 2023, Ember)."""

    @property
    def recipe(self) -> Recipe | None:
        """How the runs of the law were trained, if its file has that."""
        return self.law.recipe if isinstance(self.law, Parametric) else None

    @property
    def quote(self) -> Quote | None:
        """The published price that is paid; None if the user gives one, or it is not known."""
        if self.usd_per_hour is not None:
            return None
        return self.prices.quote(self.chip.name, self.pricing)

    @property
    def price(self) -> float | None:
        """US dollars per chip-hour after the discount."""
        list_price = self.usd_per_hour or (self.quote.usd if self.quote else None)
        return None if list_price is None else list_price * (1 - self.spot_discount)

    @property
    def texts(self) -> tuple[Source, ...]:
        """The texts whose size is known."""
        if self.sources or self.unique_tokens is None:
            return self.sources
        return one_source(self.unique_tokens)


MOST_FAILURES = 1000.0
"""Per chip and day: one every 86 s."""
LEAST_FLOPS = 1e10
"""Of a run: less takes no time on anything."""
LARGEST = 1e30
"""Beyond this and its inverse no quantity of a plan means anything, and products overflow."""


def check_flops(request: Request, flops: float) -> None:
    """Raises `UserError` if the budget pays for less or for more than any run takes."""
    if not LEAST_FLOPS <= flops <= LARGEST:
        pays = "" if request.budget == "flops" else f", which pays for {flops:.3g} FLOPs"
        raise NoRun(
            f"It pays for {flops:.3g} FLOPs",
            "give between 1e10 and 1e30 FLOPs (frontier runs are near 1e26).",
            "raise" if flops < LEAST_FLOPS else "lower",
            where=f"--{request.budget} is {request.amount:.3g}{pays}",
        )


def check(request: Request) -> None:
    """Raises `UserError` for values that no run can have."""
    positive = {
        f"--{request.budget}": request.amount,
        "--params": request.params,
        "--tokens": request.tokens,
        "--unique-tokens": request.unique_tokens,
        "--usd-per-hour": request.usd_per_hour,
        "--batch-tokens": request.batch_tokens,
        "--restart-minutes": request.restart_minutes,
    }
    for flag, value in positive.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"{flag} is {value:g}: it must be a finite number above 0.")
        if value is not None and flag != "--flops" and not 1 / LARGEST <= value <= LARGEST:
            raise UserError(
                f"{flag} is {value:g}: give a number from {1 / LARGEST:g} to {LARGEST:g}."
            )
    if request.params is not None and request.tokens is not None and not request.fixed:
        raise UserError(
            "A budget, --params and --tokens contradict each other: give the budget with only one "
            "of --params and --tokens."
        )
    if request.inference_tokens < 0:
        raise UserError(f"--inference-tokens is {request.inference_tokens:g}: give 0 or more.")
    for flag, value in (
        ("--spot-discount", request.spot_discount),
        ("--restart-overhead", request.restart_overhead or 0.0),
    ):
        if not 0 <= value < 1:
            raise UserError(f"{flag} is {value:g}: give a share from 0 to below 1.")
    if not 0 <= request.failures_per_chip_day <= MOST_FAILURES:
        raise UserError(
            f"--failures-per-chip-day is {request.failures_per_chip_day:g}: give 0 to "
            f"{MOST_FAILURES:g} (Llama 3: {FAILURES_PER_CHIP_DAY:.2g})."
        )
    if request.spot_discount and request.pricing != "on-demand":
        raise UserError(
            f"--spot-discount is a share of the on-demand price, but --pricing is "
            f"{request.pricing}: leave one of them out."
        )
    _check_sources(request)
    _check_precision(request)
    if request.budget == "flops":
        check_flops(request, request.amount)
    if request.budget == "usd" and request.price is None:
        kind = "list" if request.pricing == "on-demand" else request.pricing
        raise UserError(
            f"No {kind} price of {request.chip.name} is known: give --usd-per-hour, --prices, or a "
            "budget in --flops or --chip-hours."
        )


def _check_precision(request: Request) -> None:
    """Raises `UserError` if the chip's data sheet has no higher rate for 8 bits."""

    def gains(chip: Chip) -> bool:
        rate = {"int8": chip.int8_flops, "fp8": chip.fp8_flops}[request.quantize]
        return rate is not None and rate > chip.bf16_flops

    if request.quantize == "none" or gains(request.chip):
        return
    able = [chip.name for chip in CHIPS.values() if gains(chip)]
    raise UserError(
        f"--quantize is {request.quantize}, which {request.chip.name} does not multiply faster: "
        f"give --quantize none, or take {', '.join(able)}."
    )


def _check_sources(request: Request) -> None:
    if request.sources and request.unique_tokens is not None:
        raise UserError("--unique-tokens is for one text: with --source, leave it out.")
    for source in request.sources:
        if not 0 < source.share <= 1:
            raise UserError(
                f"--source {source.name} has the share {source.share:g}: give one above 0, up to 1."
            )
        if not 1 <= source.unique <= LARGEST:
            raise UserError(
                f"--source {source.name} has {source.unique:g} unique tokens: give 1 or more."
            )
    shares = sum(source.share for source in request.sources)
    if request.sources and abs(shares - 1) > 1e-6:
        raise UserError(f"The shares of --source add up to {shares:g}: they must add up to 1.")


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The hardware that serves the model. Utilisations are shares of its bfloat16 peak.

    The defaults are those of Sardana & Frankle 2023, section 4.
    """

    chip: Chip
    speed: OwnSpeed | None = None
    """What your own runs say of the chip."""
    usd_per_hour: float | None = None
    """US dollars per chip-hour. None: the list price."""
    prompt_share: float = 0.5
    """Share of prompts in the served tokens; the others are generated."""
    prefill_mfu: float = 0.5
    """Utilisation while reading prompts."""
    decode_mfu: float = 0.01
    """Utilisation while generating."""


def at_serving_price(request: Request, serving: Serving) -> Request:
    """`request` with its inference tokens weighted by the cost of a FLOP in serving, relative to
    training (Sardana & Frankle 2023, section 4). Training runs at the fitted share of its
    chip's peak.

    Raises:
      UserError: a share is out of range, a price is not known, or there are no tokens to serve.
    """
    check(request)
    for flag, value in (
        ("--prefill-mfu", serving.prefill_mfu),
        ("--decode-mfu", serving.decode_mfu),
    ):
        if not 0 < value <= 1:
            raise UserError(f"{flag} is {value:g}: give a share above 0, up to 1.")
    if serving.usd_per_hour is not None and not 1 / LARGEST <= serving.usd_per_hour <= LARGEST:
        raise UserError(f"--serve-usd-per-hour is {serving.usd_per_hour:g}: give a price above 0.")
    if not 0 <= serving.prompt_share <= 1:
        raise UserError(f"--prompt-share is {serving.prompt_share:g}: give a share from 0 to 1.")
    if not request.inference_tokens > 0:
        raise UserError("--serve-chip is the chip for serving: give --inference-tokens too.")
    listed = request.prices.quote(serving.chip.name, "on-demand")
    price = serving.usd_per_hour or (listed.usd if listed else None)
    if price is None:
        raise UserError(
            f"No list price of {serving.chip.name} is known: give --serve-usd-per-hour."
        )
    if request.price is None:
        raise UserError(f"No list price of {request.chip.name} is known: give --usd-per-hour.")
    tokens = request.inference_tokens
    reached = request.chip.bf16_flops * calibration().of(request.chip).share
    weighed = inference_weight(
        tokens * serving.prompt_share,
        tokens * (1 - serving.prompt_share),
        train_usd_per_flop=request.price / reached,
        prefill_usd_per_flop=price / (serving.chip.bf16_flops * serving.prefill_mfu),
        decode_usd_per_flop=price / (serving.chip.bf16_flops * serving.decode_mfu),
    )
    sentence = (
        f"A FLOP of serving costs {weighed / tokens:.3g} times a FLOP of training: on "
        f"{serving.chip.name} at {price:g} $ per hour, with {serving.prefill_mfu:.0%} of its peak "
        f"for prompts and {serving.decode_mfu:.0%} for generation."
    )
    return replace(request, inference_tokens=weighed, serving=sentence)
