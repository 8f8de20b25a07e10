"""The names of the hidden folders beside an output in which curations work."""

from __future__ import annotations

import os
import re
from pathlib import Path

from llm_jax.runs.files import short_name


def work_folder(out: Path, fingerprint: str) -> Path:
    """Where a curation with this fingerprint works before `out` is there."""
    real = Path(os.path.realpath(out))
    return real.with_name(f".{short_name(real.name)}.curate-{fingerprint[:12]}")


def stale_work(work: Path) -> list[Path]:
    """The folders that curations of the same output with other recipes or inputs have left.

    Nobody works in them while the caller holds the claim on the output.
    """
    name = re.escape(work.name.rpartition("-")[0])
    return [
        path
        for path in sorted(work.parent.iterdir())
        if re.fullmatch(rf"{name}-[0-9a-f]{{12}}", path.name)
        and path != work
        and path.is_dir()
        and not path.is_symlink()
    ]
