"""What a range of budgets buys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from asking import Capture, ask, refusal, told


@pytest.mark.slow
def test_a_range_of_dollars(capsys: Capture) -> None:
    made = ask(capsys, "--usd", "1k:100k", "--chip", "v5e")
    assert made["unit"] == "usd"
    budgets = [point["budget"] for point in made["curve"]]
    assert budgets == pytest.approx([10 ** (3 + i / 2) for i in range(5)])
    for point in made["curve"]:
        assert point["usd"] == pytest.approx(point["budget"], rel=0.02)
        assert point["loss_interval"][0] < point["loss"] < point["loss_interval"][1]
    losses = [point["loss"] for point in made["curve"]]
    assert losses == sorted(losses, reverse=True)
    alone = ask(capsys, "--usd", str(budgets[2]), "--chip", "v5e")
    same = ("params", "tokens", "loss", "hours", "chips", "usd")
    assert {name: made["curve"][2][name] for name in same} == {name: alone[name] for name in same}


@pytest.mark.slow
def test_time_on_a_machine_and_budgets_too_small(capsys: Capture) -> None:
    made = ask(capsys, "--deadline", "1h:10d", "--chip", "v5e-64")
    assert made["unit"] == "hours"
    assert {point["chips"] for point in made["curve"]} == {64}
    for point in made["curve"]:
        assert point["hours"] == pytest.approx(point["budget"], rel=0.01)
    low = ask(capsys, "--flops", "1e10:1e18", "--chip", "v5e")
    refused = [point["refused"] for point in low["curve"]]
    assert refused[0] and refused[-1] is None
    short = ask(capsys, "--flops", "1e18:1e22", "--unique-tokens", "10M")["curve"]
    assert not short[0]["limits"] or short[0]["epochs"] > 16
    assert "Your text is the limit" in short[-1]["limits"][0]


def test_the_page_shows_the_curve(capsys: Capture, tmp_path: Path) -> None:
    page = tmp_path / "curve.html"
    said = told(capsys, "--flops", "1e20:1e22", "--report", str(page))
    rows = [line for line in said.splitlines() if line.lstrip().startswith(("1e+", "3.2e+"))]
    assert len(rows) == 5
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 1 and html.count("<tr") == 6
    assert not re.search(r"""(src|href)=["']https?:""", html)
    assert "training FLOPs" in html


def test_a_range_is_for_no_single_run(capsys: Capture, tmp_path: Path) -> None:
    run = ("--write", str(tmp_path / "run.json"))
    assert "--write is for one run" in refusal(capsys, "--usd", "1k:10k", *run)
    assert "one budget in FLOPs" in refusal(capsys, "--flops", "1e18:1e20", "--law-only")
    assert "--usd" in refusal(capsys, "--usd", "10k:1k")
