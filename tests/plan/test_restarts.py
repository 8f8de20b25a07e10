"""What failures cost, against Young, Daly and the published runs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from asking import Capture, ask, refusal

from llm_jax.config import RunConfig, UserError, from_json
from llm_jax.plan.restarts import FAILURES_PER_CHIP_DAY, LONGEST, SHORTEST, Restarts


def test_llama_3_405b() -> None:
    """419 failures in 54 days on 16,384 GPUs; they report more than 90% of effective time."""
    rate = FAILURES_PER_CHIP_DAY * 16_384 / 86_400
    assert rate * 54 * 86_400 == pytest.approx(419)
    assert 1 / rate / 3600 == pytest.approx(3.09, abs=0.01)  # hours between failures
    lost = Restarts(rate=rate, pause=1.0, restart=600.0)
    assert 0.05 < lost.overhead < 0.10


def test_youngs_interval_loses_least() -> None:
    for pause, rate in ((10.0, 1e-4), (60.0, 1e-4), (2.0, 1e-5)):
        best = Restarts(rate=rate, pause=pause, restart=300.0)
        assert best.interval == pytest.approx(math.sqrt(2 * pause / rate))

        def lost(interval: float, pause: float = pause, rate: float = rate) -> float:
            return (
                math.exp(300 * rate) * math.expm1((interval + pause) * rate) / (interval * rate) - 1
            )

        assert best.overhead == pytest.approx(lost(best.interval))
        assert best.overhead < lost(best.interval / 2)
        assert best.overhead < lost(best.interval * 2)
    assert Restarts(rate=1e-3, pause=0.01, restart=1.0).interval == SHORTEST
    assert Restarts(rate=1e-9, pause=1.0, restart=1.0).interval == LONGEST
    assert Restarts(rate=0.0, pause=9.0, restart=1.0).overhead == pytest.approx(9 / LONGEST)


def test_a_simulated_run_takes_as_long() -> None:
    """Failures at random times: the mean wall time of 2,000 runs is Daly's within 1%."""
    case = Restarts(rate=1 / 20_000, pause=20.0, restart=600.0)
    rng, segments, walls = np.random.default_rng(0), 50, []
    need = case.interval + case.pause
    for _ in range(2000):
        wall = 0.0
        for _ in range(segments):
            left, until = need, rng.exponential(1 / case.rate)
            while until < left:
                wall += until
                left, until = need + case.restart, rng.exponential(1 / case.rate)
            wall += left
        walls.append(wall)
    assert np.mean(walls) / (segments * case.interval) == pytest.approx(1 + case.overhead, rel=0.01)


def test_a_machine_that_hardly_gets_on_is_refused() -> None:
    with pytest.raises(UserError, match="fewer chips"):
        _ = Restarts(rate=1 / 100, pause=1.0, restart=600.0).overhead


def test_more_chips_lose_more(capsys: Capture, tmp_path: Path) -> None:
    words = ("--params", "70B", "--tokens", "1T", "--chip", "v5p")
    few, many = (ask(capsys, *words, "--chips", chips) for chips in ("256", "2048"))
    for made in (few, many):
        shares, days = made["restarts"], made["hours"] / 24
        assert shares["failures"] == pytest.approx(FAILURES_PER_CHIP_DAY * made["chips"] * days)
        low, high = made["step_seconds"]
        ideal = made["steps"] * math.sqrt(low * high) / 3600
        assert made["hours"] == pytest.approx(ideal * (1 + shares["overhead"]))
    assert few["restarts"]["overhead"] < many["restarts"]["overhead"] < 0.02
    worse = ask(capsys, *words, "--chips", "2048", "--failures-per-chip-day", "0.01")
    assert worse["restarts"]["overhead"] > 10 * many["restarts"]["overhead"]
    slower = ask(capsys, *words, "--chips", "2048", "--restart-minutes", "60")
    assert slower["restarts"]["overhead"] > 3 * many["restarts"]["overhead"]
    given = ask(capsys, *words, "--chips", "2048", "--restart-overhead", "0.05")
    assert given["hours"] == pytest.approx(
        many["hours"] * 1.05 / (1 + many["restarts"]["overhead"])
    )
    assert given["restarts"]["failures"] is None
    path = tmp_path / "run.json"
    ask(capsys, *words, "--chips", "2048", "--write", str(path))
    run = from_json(path.read_text(), RunConfig)
    seconds = many["restarts"]["checkpoint_seconds"]
    expected = math.sqrt(math.prod(many["step_seconds"]))
    assert run.checkpoint.every == pytest.approx(seconds / expected, abs=1)
    assert "0 to 1000" in refusal(capsys, *words, "--failures-per-chip-day", "-1")
