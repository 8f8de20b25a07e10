"""How far a run ends from what a ladder's law says of it.

The nine runs of a ladder share one seed and one order of the text. A later run has another size,
another number of steps and so another schedule, and small models differ by chance in what they
learn. The residuals of the fit know nothing of that.
"""

from __future__ import annotations

import math

OUTCOMES = (-0.008, -0.002, -0.001, -0.002, -0.007, -0.012)
"""predicted/measured − 1 of six quickstarts with two laws of the standard library: 0.69M and 0.66M
parameters (2026-11-26), three of 0.56M to 0.62M (2026-11-25), 0.60M (2026-11-26, a fresh clone).
docs/log.md; docs/planner.md lists each."""
STUDENT = {5: 2.015, 6: 1.943}
"""Student's t by degrees of freedom for a 90% interval; 1.645 would be for infinitely many."""


def spread_of(outcomes: tuple[float, ...]) -> float:
    """Standard deviation of ln(measured/predicted) around 0, for an interval of ±1.645 of it.

    It is Student's t for so few runs, relative to 1.645, times their root mean square: the law is
    to be met, so a bias counts as spread.
    """
    mean_square = sum(math.log1p(error) ** 2 for error in outcomes) / len(outcomes)
    return STUDENT[len(outcomes)] / 1.645 * math.sqrt(mean_square)


RUN_TO_RUN = spread_of(OUTCOMES)
"""Of a ladder's law of which no later runs are known."""
