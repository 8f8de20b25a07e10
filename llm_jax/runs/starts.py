"""How the wall time of a run was spent, over all its starts.

`<out>/time.json` has one record per start of process 0. The record is updated while the process
runs, so a killed start leaves one too. Together the records show what a single start cannot: steps
that were lost because no checkpoint had them, and the time between starts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.runs.files import write_text

FILE = "time.json"
TASKS = "tasks"
"""The phase in which a run scores tasks."""


@dataclass
class Start:
    """One start of a run."""

    began: float
    """Time of the start, in seconds since the epoch."""
    seen: float
    """Time of the last update, in seconds since the epoch."""
    first: int = 0
    """Step that it resumed from."""
    step: int = 0
    """Last step that it dispatched."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds per phase; `step` is training."""
    devices: str = ""
    """Such as `8 × TPU v5p`; empty in records of older versions."""
    versions: dict[str, str] = field(default_factory=dict)
    """Package: version."""


SHAPE: dict[str, Any] = {
    "began": float,
    "seen": float,
    "first": int,
    "step": int,
    "seconds": {str: float},
    "devices": (str,),
    "versions": ({str: str},),
}


def read_starts(out: Path) -> list[Start]:
    """The starts recorded in `out`, oldest first; empty if there is no readable file."""
    try:
        held = read_json(out / FILE)
        require_shape(held, [SHAPE])
        return [Start(**one) for one in held]
    except (UserError, TypeError):
        return []


def write_starts(out: Path, starts: list[Start]) -> None:
    """Writes `time.json` in `out`, completely or not at all."""
    write_text(out / FILE, json.dumps([asdict(start) for start in starts]), durable=False)


def accounted(starts: list[Start]) -> dict[str, float]:
    """Seconds of the run's wall time, from its first start to its last update.

    `productive`: steps that are part of the result. `lost`: steps that had to be repeated. `idle`:
    time between starts. All other keys are phases, such as `compile`, `restore`, `save`, `eval`.
    """
    total: dict[str, float] = {"productive": 0.0, "lost": 0.0, "idle": 0.0}
    for start, following in zip(starts, [*starts[1:], None], strict=False):
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
    """Fraction of the run's wall time spent on productive steps."""
    total = accounted(starts)
    return total["productive"] / max(sum(total.values()), 1e-9)
