"""Sizes and checksums of a checkpoint's files, so that damage is noticed before they are used.

`<step>/manifest.json` holds the size and the SHA-256 of each file of the checkpoint's items. It is
written while the checkpoint still has its temporary name, so both appear together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

from llm_jax.config import UserError, read_json
from llm_jax.train.failures import Damaged

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Reads the files in the subfolders of `folder` back, and writes their sizes and checksums."""
    held = {name: [path.stat().st_size, file_sha256(path)] for name, path in _files(folder)}
    (folder / MANIFEST).write_text(json.dumps(held, indent=1), encoding="utf-8")


def _files(folder: Path) -> list[tuple[str, Path]]:
    # Files of the folder itself are Orbax's own notes, which it rewrites when it commits.
    found = ((path.relative_to(folder).as_posix(), path) for path in folder.glob("*/**/*"))
    return sorted((name, path) for name, path in found if path.is_file())


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_damage(
    folder: Path, share: int = 0, shares: int = 1, items: Collection[str] = ()
) -> int | None:
    """Index in the manifest of the first damaged file. None if there is none, -1 if the manifest
    cannot be read. A checkpoint without a manifest counts as undamaged.

    Args:
      share, shares: only the files `share`, `share + shares`, … are checked, so that the processes
        of a run divide the work.
      items: subfolders of the checkpoint to check; all if empty.
    """
    if not (folder / MANIFEST).exists():
        return None
    held = _read(folder)
    if held is None:
        return -1
    for place in range(share, len(held), shares):
        wanted = not items or held[place][0].partition("/")[0] in items
        if wanted and _damage(folder, *held[place]):
            return place
    return None


def damage_sentence(folder: Path, place: int) -> str:
    """Describes the damage that `first_damage` found."""
    held = _read(folder)
    if held is None or place < 0:
        return f"its {MANIFEST} cannot be read"
    name, size, digest = held[place]
    return f"{name} {_damage(folder, name, size, digest) or 'could not be read by a host'}"


def require_regular(folder: Path) -> None:
    """Raises `Damaged` if `folder` holds a pipe, a device or a broken link: Orbax would wait for a
    pipe, and read a device without end."""
    for path in sorted(folder.rglob("*")):
        if not (path.is_file() or path.is_dir()) and os.path.lexists(path):
            raise Damaged(
                f"{path} is not a regular file: restore it from a copy, or delete its checkpoint."
            )


def unchecked_sentence(step: int) -> str:
    return f"Checkpoint {step} has no {MANIFEST}: it is used unchecked."


def _read(folder: Path) -> list[tuple[str, int, str]] | None:
    try:
        held = read_json(folder / MANIFEST)
        return sorted((str(name), int(size), str(digest)) for name, (size, digest) in held.items())
    except (UserError, ValueError, TypeError, AttributeError):
        return None


def _damage(folder: Path, name: str, size: int, digest: str) -> str | None:
    try:
        found = (folder / name).stat().st_size
        if found != size:
            return f"has {found} bytes instead of {size}"
        return None if file_sha256(folder / name) == digest else "has another checksum"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
