"""What chips, storage and traffic cost: list prices, each with its source and date.

`prices.json` ships with the package; `plan --prices FILE` takes another file of the same form. A
price that was not published, or not read, is null. It is never guessed from another.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from llm_jax.config import UserError, from_dict, nearest, read_json, require
from llm_jax.facts.hardware import CHIPS

Pricing = Literal["on-demand", "spot", "committed-1y", "committed-3y"]
PRICINGS: tuple[Pricing, ...] = get_args(Pricing)
FILE = Path(__file__).with_name("prices.json")
MOST = 1e6
"""US dollars. No chip-hour, GB-month or GB costs more."""


@dataclass(frozen=True, kw_only=True)
class Quote:
    """One price in US dollars.

    Raises:
      ConfigError: it is not a price, or the date is not one.
    """

    usd: float
    source: str
    """Who published it, and for which region."""
    date: str
    """When it was read: year-month, or year-month-day."""

    def __post_init__(self) -> None:
        require(0 < self.usd <= MOST, f"prices: usd is {self.usd:g}: give an amount above 0.")
        require(self.source != "", "prices: source is empty: say where the price is from.")
        require(
            re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", self.date) is not None,
            f"prices: date is {self.date!r}: write year-month-day, such as 2026-11-26.",
        )


@dataclass(frozen=True, kw_only=True)
class ChipPrices:
    """US dollars per chip-hour of one chip, by contract; None where it is not known."""

    chip: str
    on_demand: Quote | None = None
    spot: Quote | None = None
    """Of machines that the cloud may take back at any time."""
    committed_1y: Quote | None = None
    committed_3y: Quote | None = None

    def __post_init__(self) -> None:
        require(
            self.chip in CHIPS,
            f"prices: there is no chip {self.chip!r}: {nearest(self.chip, CHIPS)}",
        )


@dataclass(frozen=True, kw_only=True)
class Prices:
    """A file of prices."""

    date: str
    """When the file was made."""
    note: str = ""
    chips: tuple[ChipPrices, ...] = ()
    storage_gb_month: Quote | None = None
    """US dollars per GB (10⁹ bytes) and month of object storage."""
    egress_gb: Quote | None = None
    """US dollars per GB that leaves the cloud."""

    def __post_init__(self) -> None:
        names = [one.chip for one in self.chips]
        twice = next((name for name in names if names.count(name) > 1), None)
        require(twice is None, f"prices: chip {twice!r} is listed twice: remove one of them.")

    def quote(self, chip: str, pricing: Pricing) -> Quote | None:
        """The price of a chip-hour; None if it is not known."""
        for one in self.chips:
            if one.chip == chip:
                return getattr(one, pricing.replace("-", "_"))
        return None


@functools.cache
def shipped() -> Prices:
    """The prices in `prices.json`."""
    return read(FILE)


def read(path: Path) -> Prices:
    """The prices in the JSON file `path`.

    Raises:
      UserError: there is no such file, or it does not hold prices.
    """
    raw = read_json(path)
    try:
        return from_dict(raw, Prices, "prices")
    except UserError as error:
        raise UserError(f"{path} does not hold prices: {error}") from None
