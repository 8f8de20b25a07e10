"""The interval of the law that ships, against what quickstarts really came to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.laws import lawfile
from llm_jax.laws.later_runs import OUTCOMES, RUN_TO_RUN, met, read, spread_of
from llm_jax.laws.run_curves import Curve

SHIPPED = str(Path(__file__).parents[2] / "configs/laws/stdlib.json")
LAW = lawfile.read(Path(SHIPPED))


def code_of(argv: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    return int(stop.value.code or 0)


def test_the_interval_holds_the_recorded_quickstarts() -> None:
    """At 0.60 M parameters, 2.26 M tokens; with ±0.56% the residuals alone missed five of nine."""
    low, high = LAW.interval(0.60e6, 2.26e6) or (0.0, 0.0)
    predicted = LAW.loss(0.60e6, 2.26e6)
    held = [low <= predicted / (1 + error) <= high for error in OUTCOMES]
    assert sum(held) / len(held) >= 0.9
    assert (high - low) / 2 / predicted == pytest.approx(0.0142, abs=0.001)
    alone = replace(LAW, spread=0.0).interval(0.60e6, 2.26e6) or (0.0, 0.0)
    assert sum(alone[0] <= predicted / (1 + error) <= alone[1] for error in OUTCOMES) == 4


def test_eight_of_the_quickstarts_predict_the_ninth() -> None:
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


def curve(errors: tuple[float, ...]) -> list[Curve]:
    sizes = [(4e5 + 1e5 * i, 1.5e6 + 2e5 * i) for i in range(len(errors))]
    return [
        Curve(f"r{i}", n, (d / 2, d), (9.0, LAW.loss(n, d) + error))
        for i, ((n, d), error) in enumerate(zip(sizes, errors, strict=True))
    ]


def test_later_runs_move_the_law_by_their_mean() -> None:
    later = curve((0.01, 0.02, 0.06))
    moved = met(LAW, later)
    assert pytest.approx(0.03) == moved.E - LAW.E
    assert moved.draws[7][0] - LAW.draws[7][0] == pytest.approx(0.03)
    assert moved.draws[7][1:] == LAW.draws[7][1:]
    errors = [math.log(run.loss[-1] / moved.loss(run.params, run.tokens[-1])) for run in later]
    # One more run of the same kind: Student's t with two degrees of freedom, 2.920, for 90%.
    mean = sum(errors) / 3
    deviation = math.sqrt(sum((error - mean) ** 2 for error in errors) / 2)
    assert 1.645 * moved.spread == pytest.approx(2.920 * deviation * math.sqrt(4 / 3), rel=1e-3)


def test_one_later_run_tells_no_spread() -> None:
    moved = met(LAW, curve((0.05,)))
    assert pytest.approx(0.05) == moved.E - LAW.E
    assert moved.spread == pytest.approx(RUN_TO_RUN * math.sqrt(2))


def test_what_a_law_cannot_learn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its E would be -0\.\d+: fit a law to them"):
        met(LAW, curve((-LAW.E - 0.2,)))
    (tmp_path / "later.csv").write_text("params,tokens,loss\n5e5,2e6,3.3\n")
    with pytest.raises(UserError, match="is there twice"):
        read(LAW, [tmp_path / "later.csv", tmp_path / "." / "later.csv"])


def test_the_verb_writes_a_law_that_meets_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{r.params},{r.tokens[-1]},{r.loss[-1]}" for r in curve((0.01, 0.02))]
    (tmp_path / "later.csv").write_text("\n".join(["params,tokens,loss", *rows]))
    out = tmp_path / "law.json"
    argv = ["fit", str(tmp_path / "later.csv"), "--move", SHIPPED, "--out", str(out), "--json"]
    assert code_of(argv) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["moved"] == pytest.approx(0.015, abs=1e-6)
    assert [run["after"] - run["before"] for run in result["runs"]] == pytest.approx([0.015] * 2)
    law = lawfile.read(out)
    assert pytest.approx(LAW.E + 0.015, abs=1e-6) == law.E
    assert law.recipe == LAW.recipe
    assert "E moved by +0.0150 by 2 later runs" in law.source


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        (["--figure", "x.png"], "--figure is given with --move"),
        (["--bootstraps", "10"], "--bootstraps is given with --move"),
        (["--name", "besiroglu-2024"], "is the name of a published law"),
        (["--move", "none.json"], "none.json"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rest: list[str], sentence: str
) -> None:
    (tmp_path / "later.csv").write_text("params,tokens,loss\n5e5,2e6,3.3\n")
    out = tmp_path / "law.json"
    argv = ["fit", str(tmp_path / "later.csv"), "--move", SHIPPED, "--out", str(out), *rest]
    assert code_of(argv) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not out.exists()
