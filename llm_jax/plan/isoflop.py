"""The iso-FLOP curve around a plan: other sizes at the same compute, and its flat minimum."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_jax.laws.law import Law
from llm_jax.plan.sense import bounded
from llm_jax.plan.solve import root

FACTORS = (1 / 8, 1 / 4, 1 / 2, 1 / math.sqrt(2), 1.0, math.sqrt(2), 2.0, 4.0, 8.0)
EXTRA = 0.01


@dataclass(frozen=True)
class Candidate:
    """A point of the curve. At each, 6·N·D plus serving is the budget."""

    params: float
    tokens: float
    loss: float | None
    """Predicted loss in nats per token; None if the law predicts none."""
    interval: tuple[float, float] | None
    """90% interval of the loss."""
    extra_flops: float | None
    """Share of this compute that the optimum saves at the same loss."""


def tokens_at(flops: float, params: float, inference_tokens: float) -> float:
    """Training tokens D with 6·N·D + 2·N·D_inf = C."""
    return flops / (6 * params) - inference_tokens / 3


def candidates(
    law: Law, flops: float, params: float, inference_tokens: float, vocab_size: int
) -> list[Candidate]:
    """Sizes from an eighth to eight times `params`, each with the tokens that `flops` pay for.

    Args:
      vocab_size: bounds the losses (`sense.bounded`).
    """
    found = []
    for factor in FACTORS:
        size = params * factor
        tokens = tokens_at(flops, size, inference_tokens)
        if tokens <= 0:
            continue
        found.append(
            Candidate(
                size,
                tokens,
                *bounded(law, vocab_size, size, tokens),
                _extra(law, flops, size, tokens, inference_tokens),
            )
        )
    return found


def _extra(
    law: Law, flops: float, params: float, tokens: float, inference_tokens: float
) -> float | None:
    """1 − C'/C, where the optimum of C' has this point's loss. None if no loss is known."""
    loss = law.loss(params, tokens)
    if loss is None or inference_tokens:
        return None

    def gap(log_flops: float) -> float:
        best = law.optimum(math.exp(log_flops)).loss
        assert best is not None
        return best - loss

    high, low = math.log(flops), math.log(flops) - 20
    if gap(high) >= 0 or gap(low) <= 0:
        return 0.0
    return 1 - math.exp(root(gap, low, high)) / flops


def flat_range(
    law: Law, flops: float, params: float, inference_tokens: float = 0.0
) -> tuple[float, float] | None:
    """(smallest, largest) size that reaches the loss of `params` with at most 1% more compute.

    None if the law predicts no loss. `params` is the optimum. With 1.01·C, the loss is below the
    optimum's loss on an interval of N; its ends are found by bracketing.
    """
    goal = law.loss(params, tokens_at(flops, params, inference_tokens))
    if goal is None:
        return None

    def gap(log_params: float) -> float:
        size = math.exp(log_params)
        tokens = tokens_at(flops * (1 + EXTRA), size, inference_tokens)
        loss = law.loss(size, tokens) if tokens > 0 else None
        return math.inf if loss is None else loss - goal

    ends = []
    for direction in (-1, 1):
        inside, step = math.log(params), 0.05
        if gap(inside) >= 0:
            return params, params
        while gap(inside + direction * step) < 0 and step < 20:
            step *= 2
        outside = inside + direction * step
        while math.isinf(gap(outside)):
            outside = (inside + outside) / 2
            if gap(outside) < 0:
                break
        if gap(outside) < 0:
            ends.append(math.exp(outside))
        else:
            ends.append(math.exp(root(gap, inside, outside)))
    return ends[0], ends[1]
