"""What a plan's price, storage and restarts are from, in words, from its JSON object."""

from __future__ import annotations

from typing import Any

from llm_jax.report.wording import gigabytes, money


def price_text(r: dict[str, Any]) -> str:
    """Contract, source and date of the price of a chip-hour."""
    price = r["price"]
    if price["source"] is None:
        return f"no {price['pricing']} price is known"
    dated = f", {price['source']}, {price['date']}" if price["date"] else ""
    discount = f", {price['discount']:.0%} off" if price["discount"] else ""
    return f"{price['pricing']}{dated}{discount}"


def storage_rows(r: dict[str, Any]) -> list[list[str]]:
    """(name, amount, how) of checkpoints in storage and of weights that leave the cloud; empty for
    a machine of one's own."""
    held = r["storage"]
    if held is None:
        return []
    size = gigabytes(held["checkpoint_bytes"])
    kept = f"{held['checkpoints_kept']} checkpoints of {size} for {held['months']:.3g} months"
    sent = f"{gigabytes(held['weights_bytes'])} of weights, once"
    return [
        ["Storage", money(held["storage_usd"]), _priced(kept, held, "gb_month", "storage")],
        ["Egress", money(held["egress_usd"]), _priced(sent, held, "gb_egress", "egress")],
    ]


def _priced(amount: str, held: dict[str, Any], unit: str, name: str) -> str:
    price, source = held[f"usd_per_{unit}"], held[f"{name}_source"]
    if price is None:
        return f"{amount}; no price is known"
    return f"{amount}, at ${price:g} per {'GB-month' if name == 'storage' else 'GB'} ({source})"


def restart_text(r: dict[str, Any]) -> str:
    """What the time for restarts is computed from."""
    found = r["restarts"]
    if found["failures"] is None:
        return "given" if found["overhead"] else "nothing fails"
    return (
        f"{found['failures']:.3g} failures ({found['failures_per_chip_day']:.2g} per chip and "
        f"day), {found['restart_minutes']:g} min each, a checkpoint every "
        f"{found['checkpoint_seconds'] / 60:.3g} min (Daly 2006)"
    )
