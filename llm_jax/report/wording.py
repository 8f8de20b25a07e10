"""Amounts in words: sizes, money, time and losses."""

from __future__ import annotations

from typing import Any

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def short(value: float) -> str:
    """Three digits and a unit: `7.01B`, `1.4T`, `350M`."""
    for size, letter in UNITS:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{letter}" if value < 999.5 * size else f"{value:.3g}"
    return f"{value:.3g}"


def gigabytes(value: float) -> str:
    """Bytes in GB (10⁹ bytes)."""
    return f"{value / 1e9:.3g} GB" if value < 1e12 else f"{value / 1e9:,.0f} GB"


def money(value: float | None) -> str:
    """US dollars; `not known` for None."""
    if value is None:
        return "not known"
    if 0 < value < 0.01:
        return f"${value:.1g}"
    return f"${value:,.0f}" if value >= 100 else f"${value:.2f}"


def duration(hours: float) -> str:
    """Hours in a readable unit: `36 s`, `12 min`, `5.2 h`, `12.3 days`."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.1f} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} days"


def loss_text(loss: float | None, interval: Any) -> str:
    """A predicted loss and its 90% interval."""
    if loss is None:
        return "not predicted"
    return f"{loss:.3f} nats/token (90%: {interval[0]:.3f} to {interval[1]:.3f})"
