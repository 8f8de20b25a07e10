"""A save that timed out, `<out>/slow_save.json`, so that the next start gives it longer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.runs.files import write_text

FILE = "slow_save.json"


@dataclass(frozen=True)
class SlowSave:
    step: int
    seconds: int
    """Its deadline."""


def keep_slow_save(out: Path, save: SlowSave) -> None:
    """Raises `OSError` if it cannot be written."""
    write_text(out / FILE, json.dumps(asdict(save)) + "\n")


def read_slow_save(out: Path) -> SlowSave | None:
    """The newest save that timed out. None if there is none, or if the file is damaged: then the
    next start does not give it longer."""
    if not (out / FILE).is_file():
        return None
    try:
        held = read_json(out / FILE)
        require_shape(held, {"step": int, "seconds": int})
    except UserError:
        return None
    return SlowSave(held["step"], held["seconds"])
