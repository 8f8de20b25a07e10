"""Short runs of one small size that stand for a large one (RegMix, Liu et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import replace

from llm_jax.config import EvalConfig, UserError
from llm_jax.plan.ladder_runs import (
    STEP,
    TOKENS_PER_PARAM,
    LadderRequest,
    Rung,
    about_flops,
    check_budget,
    in_own_words,
    rung_of,
)
from llm_jax.plan.run_config import EVAL_TOKENS

PROXY_TOKENS_PER_PARAM = TOKENS_PER_PARAM * STEP**2
"""Tokens per parameter of a proxy: the most that a ladder's smallest size has."""
LEAST_BATCHES = 8
"""Fewest validation batches of each source."""


def plan_proxy(request: LadderRequest, count: int, sources: int) -> Rung:
    """One of `count` equal runs that together spend the budget.

    It evaluates at its end alone, on a quarter of its tokens, but no more of all `sources` together
    than a ladder's run on its one.

    Raises:
      UserError: the budget is too small for that many runs, or a run would read more than
        `request.text` has.
    """
    check_budget(request.flops, request.minutes)
    flops = about_flops(request)
    params = math.sqrt(flops / count / (6 * PROXY_TOKENS_PER_PARAM))
    with in_own_words(request.flops, request.minutes):
        rough = rung_of(request, params, PROXY_TOKENS_PER_PARAM * params)
        if request.minutes is not None:
            ratio = request.minutes * 60 / count / rough.seconds
        else:
            ratio = flops / count / rough.flops
        proxy = rung_of(request, params, ratio * PROXY_TOKENS_PER_PARAM * params)
    if proxy.tokens > request.text.tokens:
        raise UserError(
            f"Each proxy would read {proxy.tokens:,} tokens, but all sources together have "
            f"{request.text.tokens:,}: give a smaller budget, more --proxies, or more text."
        )
    tokens = min(proxy.tokens // 4, EVAL_TOKENS)
    batches = max(LEAST_BATCHES, -(-tokens // (sources * proxy.config.batch_tokens)))
    config = replace(proxy.config, eval=EvalConfig(every=proxy.config.steps, batches=batches))
    return replace(proxy, config=config)
