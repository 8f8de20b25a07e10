"""From the flags of `plan` to a `Request`, or to several for the points of a curve."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llm_jax.commands.plan_given import given_model
from llm_jax.commands.plan_mixture import sources_of, text_of_mixture
from llm_jax.config import UserError

if TYPE_CHECKING:
    from llm_jax.facts.hardware import Chip
    from llm_jax.facts.prices import Prices
    from llm_jax.plan.dataset_text import Text
    from llm_jax.plan.given import Given
    from llm_jax.plan.request import Request

UNIT: dict[str, Literal["flops", "usd", "chip-hours"]] = {
    "flops": "flops",
    "usd": "usd",
    "chip_hours": "chip-hours",
    "deadline_hours": "chip-hours",
    "loss": "flops",
}
"""Budget flag → the planner's unit for it."""
FLAG = {name: "--" + name.replace("_", "-") for name in UNIT} | {"deadline_hours": "--deadline"}


def text_of(args: argparse.Namespace) -> Text | None:
    """The dataset in --data, or the mixture in --mixture; None if there is none yet."""
    from llm_jax.plan import dataset_text

    if args.mixture and not args.data:
        return text_of_mixture(args.mixture)
    return dataset_text.read(args.data) if args.data and Path(args.data).exists() else None


def budget_of(args: argparse.Namespace) -> str | None:
    """The budget flag that was given; None if model and tokens are given instead.

    Raises:
      UserError: there is none, or more than one.
    """
    named = [name for name in UNIT if getattr(args, name) is not None]
    model = args.params is not None or args.config or args.weights
    own_tokens = args.config and not args.weights
    if len(named) == 1:
        return named[0]
    if not named and model and (args.tokens is not None or own_tokens):
        return None
    flags = [FLAG[name] for name in named]
    said = f"{' and '.join(flags)} were given" if flags else "none was given"
    raise UserError(
        f"A plan takes one budget, but {said}: choose one of --flops, --usd, --chip-hours, "
        "--deadline with --chips, --loss, or --tokens with --params, --config or --from."
    )


def machine_of(args: argparse.Namespace) -> tuple[Chip, int | None]:
    """The chip, and the number of chips that --chip and --chips say.

    Raises:
      UserError: they contradict each other, or there is no such chip or slice.
    """
    from llm_jax.plan.machine_name import machine_named
    from llm_jax.plan.this_machine import local_chip

    if args.chip == "local":
        return local_chip(args.remeasure), args.chips or 1
    unit, chips = machine_named(args.chip)
    if chips and args.chips and chips != args.chips:
        raise UserError(
            f"--chip {args.chip} has {chips} chips, but --chips is {args.chips}: leave one out."
        )
    return unit, chips or args.chips


def request_of(args: argparse.Namespace, text: Text | None, budget: str | None) -> Request:
    """The flags as a `Request`; of a curve that of its first point.

    Raises:
      UserError: flags contradict each other, or name what does not exist.
    """
    from llm_jax.laws import lawfile
    from llm_jax.laws.law import Parametric
    from llm_jax.laws.published import DEFAULT, DEFAULTS
    from llm_jax.plan.own_speed import own_speed
    from llm_jax.plan.request import Request

    law = lawfile.load(args.law or DEFAULTS.get(args.family, DEFAULT))
    recipe = law.recipe if isinstance(law, Parametric) else None
    given = _given(args, text, recipe)
    unit, chips = machine_of(args)
    sizes = _sizes(args, given)
    sources = tuple(args.source)
    if not sources and isinstance(law, Parametric):
        sources = sources_of(args, given)
    unique = text.tokens if text and isinstance(law, Parametric) and not sources else None
    vocab_size = text.vocab_size if text else recipe.vocab_size if recipe else None
    request = Request(
        budget=UNIT[budget] if budget else "flops",
        fixed=budget is None,
        amount=1.0,
        chip=unit,
        speed=own_speed(unit),
        law=law,
        chips=chips,
        family=args.family or (recipe.family if recipe else "llama"),
        given=given,
        rule=args.rule or (recipe.rule if recipe else None),
        seq_len=args.seq_len or sizes["seq_len"] or (recipe.seq_len if recipe else None),
        params=sizes["params"],
        tokens=sizes["tokens"],
        vocab_size=args.vocab_size or vocab_size,
        quantize=args.quantize or (given.run.compute.quantize if given and given.run else "none"),
        unique_tokens=args.unique_tokens or unique,
        sources=sources,
        prices=_prices(args),
        **{
            name: getattr(args, name)
            for name in (
                "inference_tokens", "batch_tokens", "usd_per_hour", "spot_discount", "pricing",
                "restart_overhead", "watts", "pue", "carbon", "failures_per_chip_day",
                "restart_minutes",
            )
            if getattr(args, name) is not None
        },
    )  # fmt: skip
    if budget is None:
        amount = 6 * (request.params or 0) * (request.tokens or 0)
    else:
        said = getattr(args, budget)
        amount = _amount(request, budget, said[0] if isinstance(said, tuple) else said)
    return _served(args, replace(request, amount=amount))


def curve_of(args: argparse.Namespace, request: Request, budget: str) -> list[Request]:
    """The requests of a curve's points; `request` is that of the first."""
    points = getattr(args, budget)
    return [replace(request, amount=_amount(request, budget, point)) for point in points]


def _given(args: argparse.Namespace, text: Text | None, recipe: Any) -> Given | None:
    reference = args.weights or args.config
    if reference is None:
        return None
    flag = "--from" if args.weights else "--config"
    for other, value in (
        ("--config", args.config if args.weights else None),
        ("--params", args.params),
        ("--family", args.family),
        ("--vocab-size", args.vocab_size),
        ("--loss", args.loss),
    ):
        if value is not None:
            raise UserError(f"{flag} gives the model, and so does {other}: leave one of them out.")
    return given_model(reference, weights=bool(args.weights), recipe=recipe, text=text)


def _sizes(args: argparse.Namespace, given: Given | None) -> dict[str, Any]:
    """Parameters, tokens and length of sequences, by the flags and by the model that is given."""
    from llm_jax.facts.counts import active_parameters
    from llm_jax.plan.architecture import default_seq_len

    sizes = {"params": args.params, "tokens": args.tokens, "seq_len": None}
    if given is None:
        return sizes
    params = float(active_parameters(given.model))
    longest = given.model.max_seq_len
    if args.seq_len and args.seq_len > longest:
        raise UserError(
            f"--seq-len is {args.seq_len}, but {given.name} has sequences of at most {longest}: "
            "give --extend for a second stage with longer ones."
        )
    run = given.run
    sizes |= {
        "params": params,
        "seq_len": run.data.seq_len if run else min(longest, default_seq_len(params)),
    }
    budget = any(getattr(args, name) is not None for name in UNIT)
    if args.tokens is None and not budget:
        if run is None:
            raise UserError(
                f"{given.name} says nothing of training tokens: give --tokens, or a budget."
            )
        sizes["tokens"] = float(run.tokens(run.steps))
    return sizes


def _amount(request: Request, budget: str, said: float) -> float:
    """The planner's amount for what a budget flag says."""
    if budget == "loss":
        return _flops_for(said, request.law, request.inference_tokens)
    if budget != "deadline_hours":
        return said
    if request.chips is None:
        raise UserError("--deadline needs --chips: give the number of chips.")
    if not said > 0:
        raise UserError(f"--deadline is {said:g}: it must be above 0.")
    return said * request.chips


def _flops_for(loss: float, law: Any, inference_tokens: float) -> float:
    """The compute of the cheapest run that reaches `loss`, serving included."""
    from llm_jax.laws.law import Parametric
    from llm_jax.plan.objectives import cheapest_at_loss

    if not isinstance(law, Parametric):
        raise UserError(f"--loss needs a law that predicts losses, and {law.name} does not.")
    best = cheapest_at_loss(law, loss, inference_tokens)
    return 6 * best.params * best.tokens + 2 * best.params * inference_tokens


def _prices(args: argparse.Namespace) -> Prices:
    from llm_jax.facts import prices

    return prices.read(args.prices) if args.prices else prices.shipped()


def _served(args: argparse.Namespace, request: Request) -> Request:
    """`request` with its inference tokens at the price of --serve-chip, if one is given."""
    from llm_jax.facts import hardware
    from llm_jax.plan.request import Serving, at_serving_price

    if args.serve_chip is None:
        return request
    serving = Serving(
        chip=hardware.chip(args.serve_chip),
        usd_per_hour=args.serve_usd_per_hour,
        prompt_share=args.prompt_share,
        prefill_mfu=args.prefill_mfu,
        decode_mfu=args.decode_mfu,
    )
    return at_serving_price(request, serving)
