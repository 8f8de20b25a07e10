"""The interval of the law that ships, against what quickstarts really came to."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from llm_jax.config import UserError
from llm_jax.laws import lawfile
from llm_jax.laws.spread import OUTCOMES, RUN_TO_RUN, spread_of

LAW = lawfile.read(Path(__file__).parents[2] / "configs/laws/stdlib.json")


def test_the_interval_holds_the_recorded_quickstarts() -> None:
    """At 0.60 M parameters and 2.26 M tokens, with ±0.56% the residuals alone missed two of six."""
    low, high = LAW.interval(0.60e6, 2.26e6) or (0.0, 0.0)
    predicted = LAW.loss(0.60e6, 2.26e6)
    held = [low <= predicted / (1 + error) <= high for error in OUTCOMES]
    assert sum(held) / len(held) >= 0.9
    assert (high - low) / 2 / predicted == pytest.approx(0.0142, abs=0.001)
    alone = replace(LAW, spread=0.0).interval(0.60e6, 2.26e6) or (0.0, 0.0)
    assert sum(alone[0] <= predicted / (1 + error) <= alone[1] for error in OUTCOMES) == 3


def test_five_of_the_quickstarts_predict_the_sixth() -> None:
    def holds(left_out: int) -> bool:
        others = OUTCOMES[:left_out] + OUTCOMES[left_out + 1 :]
        noise = math.hypot(LAW.residual, spread_of(others))
        return abs(math.log1p(OUTCOMES[left_out])) <= 1.645 * noise

    assert [holds(i) for i in range(len(OUTCOMES))].count(False) <= 1


def test_the_law_that_ships_has_the_spread(tmp_path: Path) -> None:
    assert LAW.spread == pytest.approx(RUN_TO_RUN, rel=1e-3)
    lawfile.write(LAW, tmp_path / "law.json")
    assert lawfile.read(tmp_path / "law.json") == LAW
    lawfile.write(replace(LAW, spread=-0.1), tmp_path / "law.json")
    with pytest.raises(UserError, match="spread"):
        lawfile.read(tmp_path / "law.json")
