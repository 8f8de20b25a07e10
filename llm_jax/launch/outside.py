"""Finds the files of `launch/`: what runs on hosts outside the package."""

from __future__ import annotations

from pathlib import Path


def outside_file(name: str) -> str:
    """Text of `launch/<name>`, from the repository or from where the wheel put it."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "outside", package.parent / "launch"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise FileNotFoundError(f"launch/{name} came neither with the package nor with a repository")
