"""Numbers with their nouns, for sentences and tables."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 chip`, `1,200 chips`, `2 micro-batches`: the noun in the form that the number needs."""
    plural = "es" if noun.endswith(("ch", "sh", "s", "x")) else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"
