"""What a plan is asked for, and the sentences for what cannot be asked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from llm_jax.config import UserError
from llm_jax.plan import hyperparameters
from llm_jax.plan.hardware import Chip
from llm_jax.plan.laws import Law, Parametric, Recipe
from llm_jax.plan.objectives import inference_weight

BudgetKind = Literal["flops", "usd", "chip-hours"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for. Amounts: FLOPs (6·N·D, or exact), US dollars, or chip-hours."""

    budget: BudgetKind
    amount: float
    chip: Chip
    law: Law
    chips: int | None = None
    family: str = "llama"
    params: float | None = None
    """Fixed size (total parameters); the law's optimum if None."""
    tokens: float | None = None
    """Fixed number of training tokens; what the budget pays for if None."""
    unique_tokens: float | None = None
    inference_tokens: float = 0.0
    """Tokens to be served over the model's life; their FLOPs are paid from the same budget, at the
    price of training FLOPs (`at_serving_price` makes them so)."""
    serving: str = ""
    """How dear serving is, in a sentence, where it was weighed."""
    seq_len: int | None = None
    vocab_size: int | None = None
    batch_tokens: float | None = None
    rule: str = hyperparameters.DEFAULT
    usd_per_hour: float | None = None
    spot_discount: float = 0.0
    restart_overhead: float = 0.05
    """Share of time lost to restarts and lost steps; Llama 3 (2024) reports less than 10%."""
    watts: float | None = None
    """Per chip; None takes the chip's, if its maker has published one."""
    pue: float = 1.1
    """Energy of the data centre over that of the chips (Google's fleet, 2023)."""
    carbon: float = 0.48
    """kg CO₂e per kWh (world average of 2023, Ember)."""

    @property
    def recipe(self) -> Recipe | None:
        """How the law's runs were trained, if its file says so."""
        return self.law.recipe if isinstance(self.law, Parametric) else None

    @property
    def price(self) -> float | None:
        """US dollars per chip-hour after the discount."""
        list_price = self.usd_per_hour or self.chip.usd_per_hour
        return None if list_price is None else list_price * (1 - self.spot_discount)


def check(request: Request) -> None:
    """Raises `UserError` for amounts that no run can have."""
    positive = {
        f"--{request.budget}": request.amount,
        "--params": request.params,
        "--tokens": request.tokens,
        "--unique-tokens": request.unique_tokens,
        "--usd-per-hour": request.usd_per_hour,
        "--batch-tokens": request.batch_tokens,
    }
    for flag, value in positive.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"{flag} is {value:g}: it must be a finite number above 0.")
    if request.params is not None and request.tokens is not None:
        raise UserError(
            "A budget, --params and --tokens contradict each other: give the budget with one of "
            "the two."
        )
    if request.inference_tokens < 0:
        raise UserError(f"--inference-tokens is {request.inference_tokens:g}: give 0 or more.")
    for flag, value in (
        ("--spot-discount", request.spot_discount),
        ("--restart-overhead", request.restart_overhead),
    ):
        if not 0 <= value < 1:
            raise UserError(f"{flag} is {value:g}: give a share from 0 up to, not including, 1.")
    if request.budget == "flops" and not 1e10 <= request.amount <= 1e30:
        raise UserError(
            f"--flops is {request.amount:.3g}: models take between 1e10 and 1e30; frontier runs "
            "are near 1e26."
        )
    if request.budget == "usd" and request.price is None:
        raise UserError(
            f"No list price of {request.chip.name} is known: give --usd-per-hour, or a budget in "
            "--flops or --chip-hours."
        )


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The hardware that serves the model. Utilisations are shares of its bfloat16 peak."""

    chip: Chip
    usd_per_hour: float | None = None
    """Per chip; None takes the list price."""
    prompt_share: float = 0.5
    """Of the served tokens; the others are generated."""
    prefill_mfu: float = 0.5
    decode_mfu: float = 0.01
    """Sardana & Frankle 2023, section 4: 50% for prompts and for training, 1% for generation."""


def at_serving_price(request: Request, serving: Serving) -> Request:
    """`request` with its inference tokens weighed by what a FLOP costs to serve and to train
    (Sardana & Frankle 2023, section 4). Training reaches the attainable share of its chip's peak.

    Raises:
      UserError: a share outside of (0, 1], no price, or no tokens to serve.
    """
    for flag, value in (
        ("--prefill-mfu", serving.prefill_mfu),
        ("--decode-mfu", serving.decode_mfu),
    ):
        if not 0 < value <= 1:
            raise UserError(f"{flag} is {value:g}: give a share above 0, up to 1.")
    if not 0 <= serving.prompt_share <= 1:
        raise UserError(f"--prompt-share is {serving.prompt_share:g}: give a share from 0 to 1.")
    if not request.inference_tokens > 0:
        raise UserError("--serve-chip says where the model serves: give --inference-tokens too.")
    price = serving.usd_per_hour or serving.chip.usd_per_hour
    if price is None:
        raise UserError(
            f"No list price of {serving.chip.name} is known: give --serve-usd-per-hour."
        )
    if request.price is None:
        raise UserError(f"No list price of {request.chip.name} is known: give --usd-per-hour.")
    tokens = request.inference_tokens
    weighed = inference_weight(
        tokens * serving.prompt_share,
        tokens * (1 - serving.prompt_share),
        train_usd_per_flop=request.price / (request.chip.bf16_flops * request.chip.attainable),
        prefill_usd_per_flop=price / (serving.chip.bf16_flops * serving.prefill_mfu),
        decode_usd_per_flop=price / (serving.chip.bf16_flops * serving.decode_mfu),
    )
    said = (
        f"A FLOP of serving on {serving.chip.name} at {price:g} $ an hour, "
        f"{serving.prefill_mfu:.0%} of its peak for prompts and {serving.decode_mfu:.0%} for what "
        f"is generated, costs {weighed / tokens:.3g} times one of training."
    )
    return replace(request, inference_tokens=weighed, serving=said)
