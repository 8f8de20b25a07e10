"""Where the wall time of a run went, over all its starts.

`<out>/time.json` has one record per start of process 0, kept up to date while it runs, so that a
killed start leaves its own behind. From them follow what no start can see by itself: steps that
were lost because no checkpoint held them, and the time between starts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from llm_jax.runs.files import write_text

FILE = "time.json"


@dataclass
class Start:
    began: float
    """Seconds since the epoch."""
    seen: float
    """The last sign of life."""
    first: int = 0
    """Step that it went on from."""
    step: int = 0
    """Last step that it made."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Per phase; `step` is training."""


def read_starts(out: Path) -> list[Start]:
    try:
        held = json.loads((out / FILE).read_text(encoding="utf-8"))
        return [Start(**one) for one in held]
    except (OSError, ValueError, TypeError):
        return []


def write_starts(out: Path, starts: list[Start]) -> None:
    write_text(out / FILE, json.dumps([asdict(start) for start in starts]), durable=False)


def accounted(starts: list[Start]) -> dict[str, float]:
    """Seconds of the run's wall time, from its first start to the last sign of life.

    `productive`: steps that are part of the result; `lost`: steps that had to be made again;
    `idle`: between starts; and the phases, such as `compile`, `restore`, `save`, `eval`.
    """
    total: dict[str, float] = {"productive": 0.0, "lost": 0.0, "idle": 0.0}
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        kept = 1.0
        if following:
            total["idle"] += max(0.0, following.began - start.seen)
            if start.step > start.first:
                again = start.step - max(start.first, following.first)
                kept -= max(0, again) / (start.step - start.first)
        stepping = start.seconds.get("step", 0.0)
        total["productive"] += kept * stepping
        total["lost"] += (1 - kept) * stepping
        for name, seconds in start.seconds.items():
            if name != "step":
                total[name] = total.get(name, 0.0) + seconds
    return total


def goodput(starts: list[Start]) -> float:
    """Fraction of the run's wall time that went into steps that count."""
    total = accounted(starts)
    return total["productive"] / max(sum(total.values()), 1e-9)
