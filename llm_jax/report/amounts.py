"""Amounts in the unit that suits their size."""

from __future__ import annotations

import math
from collections.abc import Callable

BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))
ENERGY = ((1e3, "MWh"), (1.0, "kWh"), (1e-3, "Wh"))
MASS = ((1e3, "t"), (1.0, "kg"), (1e-3, "g"))
SECONDS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))


def digits(value: float, number: int = 4) -> str:
    """`number` significant digits, never as a power of ten: `476,200`, `0.00156`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = number - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, places):,.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def in_units(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """Three digits and the largest unit that the value reaches, or the smallest one."""
    size, unit = next((one for one in units if abs(value) >= one[0]), units[-1])
    return f"{digits(value / size, 3)} {unit}"


def span(low: float, high: float, form: Callable[[float], str]) -> str:
    """`low to high` in words, where both are `form`atted."""
    return f"{form(low)} to {form(high)}"


def rounded(usd: float) -> str:
    """US dollars with three digits, for the ends of an interval: `$1.72M`, `$1,430`."""
    return f"${digits(usd / 1e6, 3)}M" if usd >= 1e6 else f"${digits(usd, 3)}"
