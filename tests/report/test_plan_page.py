"""The page of a plan, over requests that differ much, and the style that all pages share."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_parts import Page

from llm_jax.cli import main
from llm_jax.report.amounts import BYTES, SECONDS, digits, in_units, rounded
from llm_jax.report.html import DARK, LIGHT

REQUESTS = {
    "small": "--usd 500 --chip v5e",
    "large": "--usd 2e6 --chip v5p",
    "side by side": "--flops 5e22 --chip v6e --chips 256 --compare v5e,v5p,h100,tpu7x",
    "a loss": "--loss 2.2 --chip h100 --compare v6e",
    "fixed": "--params 70B --tokens 15T --chip v5p --chips 2048",
    "experts": "--family moe --usd 50000 --chip v5p",
    "little text": "--usd 500 --chip v5e --unique-tokens 7.6e6",
    "tiny": "--flops 1e14 --chip v5e --chips 1",
    "no loss": "--flops 1e21 --law kaplan",
}

ZERO = re.compile(r"-?0(\.0+)? ?(s|ms|h|min|kWh|MWh|Wh|GB|MB|bytes)?|\$0(\.0+)?")


def page(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> tuple[Any, Page]:
    """A plan's figures, and its page."""
    file = tmp_path / "plan.html"
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *words.split(), "--report", str(file), "--json"])
    out, err = capsys.readouterr()
    assert stopped.value.code == 0, err
    return json.loads(out), Page(file.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_no_row_is_zero_or_unbounded(name, tmp_path, capsys) -> None:
    found, made = page(tmp_path, capsys, REQUESTS[name])
    made.check_that_it_is_alone()
    cells = [cell for row in made.rows for cell in row]
    assert len(cells) > 100
    for cell in cells:
        assert not ZERO.fullmatch(cell)
        assert not re.search(r"\b(nan|inf|None|not known)\b", cell)
    low, high = found["hours_range"]
    assert low < high and "90%: " in made.text
    if found["loss"] is not None:
        low, high = found["loss_interval"]
        assert f"90%: {low:.3f} to {high:.3f}" in made.text
    memory = found["memory_bytes"]
    assert made.row("together") == [in_units(memory["total"], BYTES)]
    labels = [value for key, value in made.attributes if key == "aria-label"]
    assert made.tags.count("svg") == (1 if found["loss"] is None else 3)
    assert sum("oofline of one device" in label for label in labels) == 1


@pytest.mark.slow
def test_chips_side_by_side(tmp_path, capsys) -> None:
    found, made = page(tmp_path, capsys, REQUESTS["side by side"])
    assert len(found["compare"]) == 5
    for row in found["compare"]:
        cells = made.row(row["machine"])
        assert cells[0] == f"{row['chips']:,}"
        assert f"{row['mfu']:.0%}" in cells and row["bound"] == cells[-1]
        assert ("–" in cells) == (row["usd"] is None or row["kwh"] is None)
    cheapest = next(row for row in found["compare"] if row["cheapest"])
    priced = sum(row["usd"] is not None for row in found["compare"])
    said = f"{cheapest['machine']} is the cheapest of the {priced} whose price is known."
    assert said in made.text
    assert "The same run on other chips" not in made.text


@pytest.mark.slow
def test_seconds_on_other_chips_are_no_comparison(tmp_path, capsys) -> None:
    _, made = page(tmp_path, capsys, REQUESTS["tiny"])
    assert "The same run on other chips" not in made.text
    _, made = page(tmp_path, capsys, REQUESTS["small"])
    assert "The same run on other chips" in made.text


@pytest.mark.slow
def test_the_whole_cost_has_an_interval(tmp_path, capsys) -> None:
    found, made = page(tmp_path, capsys, REQUESTS["large"])
    low, high = (hours * found["usd"] / found["hours"] for hours in found["hours_range"])
    assert f"90%: {rounded(low)} to {rounded(high)}" in made.text


def test_amounts() -> None:
    assert [digits(value) for value in (476_151.3, 0.0015649, 0.0, 12.0, 999.96)] == [
        "476,200", "0.001565", "0", "12", "1,000"
    ]  # fmt: skip
    assert [in_units(value, SECONDS) for value in (0.0344, 2.811, 90, 93_600)] == [
        "34.4 ms", "2.81 s", "1.5 min", "1.08 days"
    ]  # fmt: skip
    assert [in_units(value, BYTES) for value in (12, 651_000, 2.796e10)] == [
        "12 bytes", "651 kB", "28 GB"
    ]  # fmt: skip
    assert [rounded(usd) for usd in (1_720_036, 444.4, 1_432)] == ["$1.72M", "$444", "$1,430"]


def luminance(colour: str) -> float:
    """Relative luminance of a hexadecimal colour (WCAG 2.2)."""
    digits = colour.lstrip("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_has_the_contrast_of_wcag_aa(theme) -> None:
    colours = dict(re.findall(r"--(\w+): (#\w+);", theme))
    grounds = {
        "ink": ("paper", "page", "chosen", "warn", "good", "range"),
        "soft": ("paper",),
        "accent": ("paper",),
        "blue": ("paper", "page"),
        "orange": ("paper",),
    }
    for text, behind in grounds.items():
        for ground in behind:
            pair = sorted(luminance(colours[name]) for name in (text, ground))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (text, ground)
