"""What a plan's figures can be: bounds of a loss, the reach of a law, and what text is worth.

A loss is at most that of guessing all tokens alike, ln V, and an interval lies between 0 and that.
A law is not asked for models or texts far below those that it was fitted on. Repeated text stops
teaching: the R-th repetition is worth e^(−R/15.4) of the first pass (Muennighoff et al. 2023, §3),
so after `MOST_EPOCHS` passes little is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from llm_jax.config import UserError
from llm_jax.laws.law import Law
from llm_jax.plan.request import Request

FAR = 10.0
"""A law predicts no loss for parameters or tokens fewer than its smallest by more than this."""
MOST_EPOCHS = 16.0
"""Passes over the text beyond which a plan says that the text is the limit."""
HALVINGS = 10
"""Steps of the search for the budget that the text is worth: within 1.4% of a millionth."""

Interval = tuple[float, float]


def why_no_loss(law: Law, vocab_size: int, params: float, tokens: float) -> str | None:
    """Why the law's loss at this point is withheld; None if it can be, or the law has none."""
    loss = law.loss(params, tokens)
    if loss is None:
        return None
    for what, value, (low, _) in (
        ("parameters", params, law.fitted.params),
        ("tokens", tokens, law.fitted.tokens),
    ):
        if value < low / FAR:
            return (
                f"{law.name} was fitted on {low:.2g} {what} and more, {low / value:.0f} times as "
                "many as here, so no loss is predicted: `llm-jax ladder` measures a law of your "
                "text."
            )
    if loss >= math.log(vocab_size):
        return (
            f"{law.name} gives {loss:.2f} nats here, more than guessing among {vocab_size:,} "
            f"tokens ({math.log(vocab_size):.2f}), so no loss is predicted: `llm-jax ladder` "
            "measures a law of your text."
        )
    return None


def bounded(
    law: Law, vocab_size: int, params: float, tokens: float
) -> tuple[float | None, Interval | None]:
    """The law's loss and its 90% interval, within what can be; None where it is withheld."""
    if why_no_loss(law, vocab_size, params, tokens):
        return None, None
    loss, interval = law.loss(params, tokens), law.interval(params, tokens)
    if loss is None or interval is None:
        return None, None
    most = math.log(vocab_size)
    return loss, (interval[0], min(interval[1], most))


def text_is_the_limit(
    request: Request,
    text: str,
    epochs: float | None,
    replan: Callable[[Request], float | None],
) -> str | None:
    """The sentence for a budget that would read the text too often; None if it would not.

    Args:
      text: name of the text that is read most often, if there are several.
      epochs: passes over it in the plan.
      replan: epochs of the plan for another request.
    """
    if epochs is None or epochs <= MOST_EPOCHS:
        return None
    worth = _worth(request, replan)
    about = "" if worth is None else f" About {_amount(request, worth)} are worth spending on it."
    return (
        f"Your text{text} is the limit, not your budget: it would be read {epochs:,.0f} times, and "
        f"more than {MOST_EPOCHS:.0f} passes teach almost nothing.{about} Take more text, or a "
        "smaller budget."
    )


def _worth(request: Request, replan: Callable[[Request], float | None]) -> float | None:
    """The largest budget whose plan reads the text at most `MOST_EPOCHS` times, on as many chips as
    suit it."""
    if request.tokens is not None:
        return None
    low, high = math.log(request.amount * 1e-6), math.log(request.amount)
    found = None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        amount = math.exp(middle)
        try:
            epochs = replan(replace(request, amount=amount, chips=None))
        except UserError:  # less than a run costs
            low = middle
            continue
        if epochs is not None and epochs <= MOST_EPOCHS:
            low, found = middle, amount
        else:
            high = middle
    return found


def _amount(request: Request, amount: float) -> str:
    if request.budget == "usd":
        return f"${amount:,.2g}" if amount < 100 else f"${amount:,.0f}"
    unit = "FLOPs" if request.budget == "flops" else "chip-hours"
    return f"{amount:.2g} {unit}"
