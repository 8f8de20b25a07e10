"""What people ask the planner: a given run, a given loss, several chips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asking import ask, refusal

from llm_jax.cli import main
from llm_jax.laws.published import preset


def test_a_given_run_has_its_cost(capsys: pytest.CaptureFixture[str]) -> None:
    run = ("--params", "70B", "--tokens", "15T", "--chip", "v5p", "--chips", "2048")
    made = ask(capsys, *run)
    assert made["params"] == pytest.approx(70e9, rel=0.02)
    assert made["tokens"] == pytest.approx(15e12, rel=1e-5)
    assert made["chips"] == 2048
    assert made["usd"] == pytest.approx(made["chip_hours"] * 4.2)
    # "How to scale your model", chapter 6: 44 days on 8,960 v5p at 40%.
    at_40 = made["hours"] / 24 * 2048 / 8960 * made["mfu"] / 0.4
    assert at_40 == pytest.approx(44, rel=0.15)
    assert made["hours_range"][0] < made["hours"] < made["hours_range"][1]
    said = refusal(capsys, "--flops", "1e21", *run)
    assert "contradict" in said
    assert "one budget" in refusal(capsys, "--params", "7B")


def test_a_loss_is_reached_at_the_least_cost(capsys: pytest.CaptureFixture[str]) -> None:
    made = ask(capsys, "--loss", "2.2")
    assert made["loss"] == pytest.approx(2.2, abs=0.01)
    law = preset("besiroglu-2024")
    assert law.optimum(6 * made["params"] * made["tokens"]).loss == pytest.approx(2.2, abs=0.01)
    served = ask(capsys, "--loss", "2.2", "--inference-tokens", "1e13")
    assert served["params"] < 0.8 * made["params"]
    assert "not above 1.817" in refusal(capsys, "--loss", "1.8")
    assert "predicts losses" in refusal(capsys, "--loss", "2.2", "--law", "hoffmann-approach1")


@pytest.mark.slow
def test_chips_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--params", "8B", "--tokens", "1T", "--chip", "v5p", "--compare", "v5e,h100,tpu7x")
    made = ask(capsys, *words)
    rows = {row["chip"]: row for row in made["compare"]}
    assert list(rows) == ["v5p", "v5e", "h100", "tpu7x"]
    assert rows["v5p"]["hours"] == made["hours"]
    (best,) = [row for row in rows.values() if row["cheapest"]]
    assert best["usd"] == min(row["usd"] for row in rows.values() if row["usd"] is not None)
    assert rows["tpu7x"]["usd"] is None  # no list price is known
    for row in rows.values():
        alone = ask(capsys, "--params", "8B", "--tokens", "1T", "--chip", row["chip"])
        assert row["chip_hours"] == pytest.approx(alone["chip_hours"], rel=0.1)
    with pytest.raises(SystemExit):
        main(["plan", *words])
    said = capsys.readouterr().out
    assert "(cheapest)" in said
    for name in ("v5p", "v5e", "h100"):
        price = rows[name]["price"]
        assert f"price of {name}: on-demand, {price['source']}, {price['date']}" in said
    assert rows["tpu7x"]["price"]["source"] is None
    assert "'v9'" in refusal(capsys, "--flops", "1e20", "--compare", "v5e,v9")


def test_8_bits_are_planned_and_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def asked(*words: str, chip: str = "v5p") -> dict[str, Any]:
        size = ("--params", "70B", "--tokens", "1T", "--chips", "512")
        return ask(capsys, *size, "--chip", chip, *words)

    plain, rounded = asked(), asked("--quantize", "int8", "--write", str(tmp_path / "run.json"))
    # A third of the matmuls at 0.795 × twice the rate: 1 - 1/3 + 1/3/1.59 of their time.
    assert 0.86 < rounded["hours"] / plain["hours"] < 0.95
    assert rounded["loss"] == plain["loss"]
    assert "not in the prediction" in " ".join(rounded["warnings"])
    spread = [made["hours_range"][1] / made["hours"] for made in (plain, rounded)]
    assert spread[1] > spread[0]
    assert json.loads((tmp_path / "run.json").read_text())["compute"]["quantize"] == "int8"
    again = ask(capsys, "--config", str(tmp_path / "run.json"), "--chip", "v5p", "--chips", "512")
    assert again["hours"] == pytest.approx(rounded["hours"], rel=0.02)
    words = ("--flops", "1e21", "--chip", "h100", "--quantize", "int8")
    assert "h100 does not multiply faster" in refusal(capsys, *words)
    assert "v4," not in refusal(capsys, *words)
