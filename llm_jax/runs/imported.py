"""What a run keeps of the model that was imported for it: licences, and settings of generation."""

from __future__ import annotations

import shutil
from pathlib import Path

from llm_jax.runs.files import new_folder

FOLDER = "imported"
"""Subfolder of a run."""


def inherit(source: Path, run: Path) -> None:
    """Copies what the run `source` keeps into `run`, which has its weights and its ids, unless
    `run` has it already."""
    if (source / FOLDER).is_dir() and not (run / FOLDER).exists():
        with new_folder(run / FOLDER) as folder:
            shutil.copytree(source / FOLDER, folder, dirs_exist_ok=True)
