"""Optima with more than the training budget: tokens to be served, and a loss to be reached."""

from __future__ import annotations

import math
from collections.abc import Callable

from llm_jax.config import UserError
from llm_jax.laws.law import Law, Optimum, Parametric
from llm_jax.plan.solve import minimum, root


def minimise_over_params(objective: Callable[[float], float], low: float, high: float) -> float:
    """The N in [low, high] with the smallest `objective(N)`, searched in ln N."""
    return math.exp(minimum(lambda x: objective(math.exp(x)), math.log(low), math.log(high)))


def inference_weight(
    prompt_tokens: float,
    output_tokens: float,
    *,
    train_usd_per_flop: float,
    prefill_usd_per_flop: float,
    decode_usd_per_flop: float,
) -> float:
    """Inference tokens weighted by the price of serving relative to training (Sardana & Frankle
    2023, section 4).

    The price of a FLOP is the hardware's dollars per second, divided by peak FLOP/s × utilisation.
    Prefill and decode have separate prices. Minimising 6·N·D·c_t + 2·N·(D_p·c_p + D_o·c_o) is the
    problem in FLOPs with D_inf = (D_p·c_p + D_o·c_o)/c_t.
    """
    cost = prompt_tokens * prefill_usd_per_flop + output_tokens * decode_usd_per_flop
    return cost / train_usd_per_flop


def cheapest_at_loss(law: Parametric, loss: float, inference_tokens: float) -> Optimum:
    """The point with the smallest 6·N·D + 2·N·D_inf that reaches `loss` (Sardana & Frankle 2023,
    eq. 5).

    It solves (βB/α + B)·D^−β + (βB·D_inf/3α)·D^(−β−1) + E − ℓ = 0 for D.

    Raises:
      UserError: the law never reaches that loss.
    """
    if loss <= law.E:
        raise UserError(
            f"A loss of {loss:.4g} is not above {law.E:.4g}, the limit of the law {law.name}: "
            "give a higher loss."
        )
    first = law.beta * law.B / law.alpha + law.B
    second = law.beta * law.B * inference_tokens / (3 * law.alpha)

    def condition(log_tokens: float) -> float:
        tokens = math.exp(log_tokens)
        return first * tokens**-law.beta + second * tokens ** (-law.beta - 1) + law.E - loss

    low, high = 1.0, 10.0
    while condition(high) > 0:
        low, high = high, high + 10.0
    tokens = math.exp(root(condition, low, high))
    params = (law.A / (loss - law.E - law.B * tokens**-law.beta)) ** (1 / law.alpha)
    return Optimum(params, tokens, law.loss(params, tokens))


def lifetime_optimum(law: Law, flops: float, inference_tokens: float) -> Optimum:
    """The best loss if `flops` pay for training and serving: 6·N·D + 2·N·D_inf = C.

    For the loss that it reaches, it is the point of `cheapest_at_loss`. Without inference it is the
    compute-optimal point.

    Raises:
      UserError: there is inference, but the law predicts no loss.
    """
    best = law.optimum(flops)
    if inference_tokens == 0:
        return best
    if best.loss is None:
        raise UserError(
            f"The law {law.name} predicts sizes, not losses, so it cannot weigh serving "
            "(--inference-tokens): choose besiroglu-2024 or a law file."
        )

    def tokens_left(params: float) -> float:
        return flops / (6 * params) - inference_tokens / 3

    def loss(params: float) -> float:
        found = law.loss(params, max(tokens_left(params), 1.0))
        assert found is not None
        return found

    most = flops / (2 * inference_tokens)
    params = minimise_over_params(
        loss,
        min(best.params, most) * 1e-6,
        min(best.params * 2, most),
    )
    return Optimum(params, tokens_left(params), law.loss(params, tokens_left(params)))
