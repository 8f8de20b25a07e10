"""Prices with their sources and dates, and what is kept and sent beside the chips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from asking import Capture, ask, refusal, told

from llm_jax.config import ModelConfig, OptimConfig, from_dict
from llm_jax.facts.hardware import CHIPS
from llm_jax.facts.prices import FILE, PRICINGS, shipped
from llm_jax.facts.sizes import state_bytes

RUN = ("--params", "8B", "--tokens", "1T", "--chips", "256")


def test_the_shipped_file_has_every_chip_and_says_what_it_does_not_know() -> None:
    prices = shipped()
    assert {one.chip for one in prices.chips} == set(CHIPS)
    assert prices.quote("v5p", "on-demand").usd == 4.2  # type: ignore[union-attr]
    assert prices.quote("tpu7x", "on-demand") is None
    raw = json.loads(FILE.read_text())
    assert all("committed_3y" in one for one in raw["chips"])  # null, not missing
    for one in prices.chips:
        listed, spot = prices.quote(one.chip, "on-demand"), prices.quote(one.chip, "spot")
        assert not (listed and spot) or spot.usd < listed.usd
        for kind in PRICINGS:
            quote = prices.quote(one.chip, kind)
            assert quote is None or (quote.source and quote.date)


def test_the_price_stands_with_its_source_and_date(capsys: Capture) -> None:
    listed, spot = (
        ask(capsys, *RUN, "--chip", "v5e", "--pricing", kind) for kind in ("on-demand", "spot")
    )
    assert listed["usd"] == pytest.approx(1.2 * listed["chip_hours"])
    assert spot["usd"] == pytest.approx(0.2449 * spot["chip_hours"])
    assert listed["price"]["date"] == "2025-02" and spot["price"]["date"] == "2026-11"
    assert spot["price"]["pricing"] == "spot" and "SkyPilot" in spot["price"]["source"]
    assert any("take spot machines back" in text for text in spot["warnings"])
    said = told(capsys, *RUN, "--chip", "v5e")
    assert "on-demand, How to scale your model" in said and "2025-02" in said
    unknown = ask(capsys, *RUN, "--chip", "v5e", "--pricing", "committed-1y")
    assert unknown["usd"] is None and unknown["price"]["source"] is None
    assert any("No committed-1y price of v5e" in text for text in unknown["warnings"])
    given = ask(capsys, *RUN, "--chip", "v5e", "--usd-per-hour", "0.9")
    assert given["usd"] == pytest.approx(0.9 * given["chip_hours"])
    assert given["price"] == {
        "usd": 0.9, "pricing": "given", "source": "given", "date": None, "discount": 0.0
    }  # fmt: skip


@pytest.mark.slow
def test_a_file_of_ones_own(capsys: Capture, tmp_path: Path) -> None:
    file, page = tmp_path / "prices.json", tmp_path / "plan.html"
    mine = {
        "date": "2026-12-01",
        "chips": [
            {"chip": "tpu7x", "committed_3y":
             {"usd": 5.5, "source": "our contract", "date": "2026-12-01"}}
        ],
    }  # fmt: skip
    file.write_text(json.dumps(mine))
    words = (*RUN, "--chip", "tpu7x", "--prices", str(file), "--pricing", "committed-3y")
    made = ask(capsys, *words, "--report", str(page))
    assert made["usd"] == pytest.approx(5.5 * made["chip_hours"])
    assert made["storage"]["storage_usd"] is None
    html = page.read_text(encoding="utf-8")
    assert "our contract" in html and "2026-12-01" in html and "no price is known" in html
    for wrong, words_ in (
        ({"chips": [{"chip": "v5x"}]}, "there is no chip 'v5x'"),
        ({"chips": [{"chip": "v5e", "spot": {"usd": -1.0, "source": "a", "date": "2026-12"}}]},
         "usd is -1"),
        ({"chips": [{"chip": "v5e", "spot": {"usd": 1.0, "source": "a", "date": "soon"}}]},
         "date is 'soon'"),
        ({"chip": []}, "no field 'chip'"),
    ):  # fmt: skip
        file.write_text(json.dumps({"date": "2026-12-01"} | wrong))
        said = refusal(capsys, *RUN, "--prices", str(file))
        assert words_ in said and said.count("\n") == 1
    assert "cannot be read" in refusal(capsys, *RUN, "--prices", str(tmp_path / "none.json"))


def test_a_discount_is_of_the_on_demand_price(capsys: Capture) -> None:
    made = ask(capsys, *RUN, "--chip", "v5e", "--spot-discount", "0.6")
    assert made["usd"] == pytest.approx(1.2 * 0.4 * made["chip_hours"])
    twice = ("--chip", "v5e", "--spot-discount", "0.6", "--pricing", "spot")
    assert "leave one of them out" in refusal(capsys, *RUN, *twice)


def test_storage_and_egress_are_named(capsys: Capture) -> None:
    made = ask(capsys, *RUN, "--chip", "v5p")
    held = made["storage"]
    state = state_bytes(from_dict(made["model"], ModelConfig), OptimConfig())
    assert held["checkpoint_bytes"] == state["params"] + state["moments"]
    assert held["checkpoint_bytes"] == pytest.approx(12 * made["params"], rel=1e-3)
    months = made["hours"] / 730
    assert held["storage_usd"] == pytest.approx(held["checkpoint_bytes"] / 1e9 * 3 * months * 0.02)
    assert held["egress_usd"] == pytest.approx(4 * made["params"] / 1e9 * 0.12, rel=1e-3)
    assert made["usd"] == pytest.approx(4.2 * made["chip_hours"])  # without them
