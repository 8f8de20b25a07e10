"""The hidden folders beside an output in which curations and builds work until it is there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from llm_jax.runs.files import short_name


def work_folder(out: Path, verb: Literal["build", "curate"], fingerprint: str) -> Path:
    """Where a build or a curation with this fingerprint works before `out` is there."""
    real = Path(os.path.realpath(out))
    return real.with_name(f".{short_name(real.name)}.{verb}-{fingerprint[:12]}")


def stale_work(work: Path, say: Callable[[str], None]) -> list[Path]:
    """The folders that earlier calls for the same output with other inputs or settings have left.

    Nobody works in them while the caller holds the claim on the output, and deletes them at its
    end. Each is said.
    """
    if not work.parent.is_dir():
        return []
    name = re.escape(work.name.rpartition("-")[0])
    stale = [
        path
        for path in sorted(work.parent.iterdir())
        if re.fullmatch(rf"{name}-[0-9a-f]{{12}}", path.name)
        and path != work
        and path.is_dir()
        and not path.is_symlink()
    ]
    for path in stale:
        say(f"{path} is unfinished work with other inputs or settings; it goes when this ends")
    return stale
