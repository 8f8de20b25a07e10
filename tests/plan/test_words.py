"""Budgets and machines as people say them."""

from __future__ import annotations

import argparse

import pytest
from asking import Capture, ask, refusal

from llm_jax.commands import number
from llm_jax.commands.plan_flags import amounts, duration
from llm_jax.config import UserError
from llm_jax.plan.machine_name import machine_named


@pytest.mark.parametrize(
    ("said", "hours"),
    [("7d", 168), ("30 days", 720), ("12h", 12), ("a week", 168), ("2w", 336), ("90min", 1.5),
     ("24", 24), ("1.5 d", 36), ("one day", 24), ("0.067", 0.067)],
)  # fmt: skip
def test_durations(said: str, hours: float) -> None:
    assert duration(said) == pytest.approx(hours)


@pytest.mark.parametrize("said", ["5y", "", "week", "-3", "1e3d", "d7"])
def test_what_is_not_a_duration(said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="30d"):
        duration(said)


def test_ranges_have_two_points_a_decade() -> None:
    read = amounts(number)
    assert read("1k") == 1000.0
    assert read("1k:1M") == pytest.approx([10 ** (3 + i / 2) for i in range(7)])
    assert len(read("1:1e30")) == 13  # type: ignore[arg-type]
    assert read("1:2") == pytest.approx([1, 2**0.5, 2])
    for said in ("5:1", "0:1", "1k:", "1:1"):
        with pytest.raises(argparse.ArgumentTypeError):
            read(said)


@pytest.mark.parametrize(
    ("name", "chip", "chips"),
    [("v5e", "v5e", None), ("v5e-64", "v5e", 64), ("v5litepod-64", "v5e", 64),
     ("v5p-128", "v5p", 64), ("tpu7x", "tpu7x", None), ("tpu7x-128", "tpu7x", 64),
     ("2xv6e-256", "v6e", 512), ("8xh100", "h100", 8), ("8 × H100", "h100", 8),
     ("h100-8", "h100", 8), ("4,096 x v6e", "v6e", 4096)],
)  # fmt: skip
def test_names_of_machines(name: str, chip: str, chips: int | None) -> None:
    unit, found = machine_named(name)
    assert (unit.name, found) == (chip, chips)


def test_slices_that_do_not_exist_name_the_nearest() -> None:
    with pytest.raises(UserError, match="v5e-32, v5e-64 and v5e-128"):
        machine_named("v5e-48")
    with pytest.raises(UserError, match="did you mean 'v5e' or 'v5p'"):
        machine_named("v5x-8")
    with pytest.raises(UserError, match="1 or more"):
        machine_named("0xh100")


@pytest.mark.parametrize(
    ("words", "chips", "hours"),
    [
        (("--deadline", "a week", "--chip", "8xh100"), 8, 168),
        (("--deadline", "30d", "--chip", "v5e-64", "--pricing", "spot"), 64, 720),
        (("--deadline", "20d", "--chip", "v6e", "--chips", "4096"), 4096, 480),
        (("--deadline-hours", "24", "--chip", "tpu7x-128"), 64, 24),
        (("--deadline", "12h", "--chip", "1xh100"), 1, 12),
    ],
)
def test_time_on_a_machine(
    capsys: Capture, words: tuple[str, ...], chips: int, hours: float
) -> None:
    made = ask(capsys, *words)
    assert made["chips"] == chips
    assert made["hours"] == pytest.approx(hours, rel=0.01)
    price = made["usd_per_chip_hour"]
    assert made["usd"] == (price and pytest.approx(price * made["chip_hours"]))


def test_contradictions_are_refused(capsys: Capture) -> None:
    said = refusal(capsys, "--deadline", "1d", "--chip", "v5e-64", "--chips", "128")
    assert "64 chips" in said and "128" in said
    assert "--deadline needs --chips" in refusal(capsys, "--deadline", "1d", "--chip", "v5e")
