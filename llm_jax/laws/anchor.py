"""A ladder's law carried to another text by one short run there.

Texts differ in how predictable they are at all, E, far more than in what size and data add to it.
So A, B and the exponents stay those of the ladder, and E is moved until the law passes through the
short run. Other ways did worse (docs/planner.md).
"""

from __future__ import annotations

import math
from dataclasses import replace

from llm_jax.laws.law import Parametric, Recipe

TRANSFER = 0.026
"""Standard deviation of ln(predicted/measured) from text to text: 0.020 over four texts
(docs/planner.md), and Student's t for as few, relative to the 1.645 that intervals use."""

Numbers = tuple[float, ...]


def moved(
    law: Parametric,
    params: float,
    tokens: float,
    loss: float,
    *,
    name: str,
    source: str,
    recipe: Recipe,
) -> Parametric:
    """`law` with E such that N = `params` and D = `tokens` have the measured `loss`.

    Each bootstrap draw passes through the run too, so the interval grows with the distance from the
    run by what the draws disagree on. The residual is that of the run, of the law, and of the way
    from text to text, together.

    Args:
      tokens: fewer than were read if the text was repeated: what they are worth.
      loss: nats per token.
      recipe: that of `law` on the new text.
    """

    def through(numbers: Numbers) -> Numbers:
        _, A, B, alpha, beta = numbers
        reducible = A * params**-alpha + B * tokens**-beta
        if loss >= reducible:
            return loss - reducible, A, B, alpha, beta
        share = loss / reducible  # E cannot be below 0: so predictable a text needs less of A and B
        return 0.0, share * A, share * B, alpha, beta

    E, A, B, _, _ = through((law.E, law.A, law.B, law.alpha, law.beta))
    return replace(
        law,
        name=name,
        source=source,
        recipe=recipe,
        E=E,
        A=A,
        B=B,
        draws=tuple(map(through, law.draws)),
        residual=math.hypot(TRANSFER, law.residual, law.residual),
        spread=0.0,  # `TRANSFER` was measured with later runs
    )
