"""What holds for every law, whatever the budget."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_jax.laws.law import Fitted, Parametric
from llm_jax.laws.published import PRESETS
from llm_jax.plan.limited_text import data_constrained, one_source
from llm_jax.plan.objectives import cheapest_at_loss, lifetime_optimum

PARAMETRIC = [law for law in PRESETS.values() if isinstance(law, Parametric)]
flops_range = st.floats(15, 28).map(lambda x: 10**x)
laws = st.builds(
    lambda E, A, B, alpha, beta: Parametric(
        name="any",
        source="hypothesis",
        counts="all",
        fitted=Fitted((1e18, 1e22), (1e7, 1e10), (1e9, 1e12)),
        E=E,
        A=A,
        B=B,
        alpha=alpha,
        beta=beta,
    ),
    E=st.floats(0.1, 3),
    A=st.floats(1, 1e4),
    B=st.floats(1, 1e4),
    alpha=st.floats(0.1, 0.8),
    beta=st.floats(0.1, 0.8),
)


@given(law=st.sampled_from(PARAMETRIC) | laws, flops=flops_range, more=st.floats(1, 1000))
def test_more_budget_never_predicts_worse(law, flops, more):
    assert law.optimum(flops * more).loss <= law.optimum(flops).loss


@given(law=st.sampled_from(PARAMETRIC) | laws, flops=flops_range, factor=st.floats(0.01, 100))
def test_optimum_is_the_minimum_of_its_curve(law, flops, factor):
    best = law.optimum(flops)
    assert 6 * best.params * best.tokens == pytest.approx(flops, rel=1e-9)
    other = law.loss(best.params * factor, best.tokens / factor)
    assert other >= best.loss * (1 - 1e-12)


@given(flops=flops_range, unique=st.floats(6, 13).map(lambda x: 10**x), factor=st.floats(0.2, 5))
def test_data_constrained_optimum_is_the_minimum(flops, unique, factor):
    law = data_constrained(PRESETS["besiroglu-2024"], one_source(unique))
    best = law.optimum(flops)
    assert law.loss(best.params * factor, best.tokens / factor) >= best.loss * (1 - 1e-7)
    assert best.loss >= law.law.optimum(flops).loss * (1 - 1e-12)
    assert law.optimum(flops * 3).loss <= best.loss * (1 + 1e-9)


@given(
    law=st.sampled_from(PARAMETRIC),
    flops=flops_range,
    share=st.floats(0.001, 0.9),
    factor=st.floats(0.3, 3),
)
def test_lifetime_optimum_is_the_minimum_and_meets_the_budget(law, flops, share, factor):
    demand = share * flops / (2 * law.optimum(flops).params)
    best = lifetime_optimum(law, flops, demand)
    spent = 6 * best.params * best.tokens + 2 * best.params * demand
    assert spent == pytest.approx(flops, rel=1e-9)
    params = best.params * factor
    tokens = flops / (6 * params) - demand / 3
    assume(tokens > 0)
    assert law.loss(params, tokens) >= best.loss * (1 - 1e-7)
    # The same point from the other side: the cheapest way to that loss (first-order condition).
    cheapest = cheapest_at_loss(law, best.loss, demand)
    assert cheapest.params == pytest.approx(best.params, rel=1e-3)


@given(law=st.sampled_from(list(PRESETS.values())), flops=flops_range)
def test_outside_of_the_fitted_range_is_said_and_wider(law, flops):
    best = law.optimum(flops)
    low, high = law.fitted.flops
    outside = not low <= flops <= high
    assert not outside or any("FLOPs are outside" in w for w in law.warnings(*_point(best)))
    interval = law.interval(best.params, best.tokens)
    if interval is None:
        return
    half = law.half_width(best.params, best.tokens)
    decades = max(0.0, math.log10(low / flops), math.log10(flops / high))
    loss, wide = law.loss(*_point(best)), half * (1 + decades)
    assert interval == pytest.approx((max(0.0, loss - wide), loss + wide), rel=1e-6)


def _point(best):
    return best.params, best.tokens
