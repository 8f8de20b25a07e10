"""Names of the figures of one source in `metrics.jsonl`: these, and the source's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOSS_OF = "loss/"
BITS_PER_BYTE_OF = "bits_per_byte/"
KNOWN = ("split", "step", "tokens", "loss", "bits_per_byte")


def own_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an objective's own (`accuracy`, …) among those of a held-out record."""
    names = (name for name in record if name not in KNOWN and "/" not in name)
    return {name: record[name] for name in names if isinstance(record[name], float)}
