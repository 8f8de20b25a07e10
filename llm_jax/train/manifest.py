"""Sizes and checksums of a checkpoint's files, so that damage is noticed before they are used.

`<step>/manifest.json` holds the size and the SHA-256 of each file of the checkpoint. It is written
while the checkpoint still has its temporary name, so both appear together.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import time
from collections.abc import Collection
from pathlib import Path

from llm_jax.config import UserError, read_json
from llm_jax.train.failures import Damaged

MANIFEST = "manifest.json"
PATIENCE = (0.5, 2.0, 0.0)
"""Seconds after each try to read a file. A mount that answers with an error may do better soon, and
a good checkpoint would be moved away."""
Sums = dict[str, tuple[int, str]]
"""A file's name, relative to the checkpoint: its size in bytes, and its SHA-256 in hexadecimal."""


def write_manifest(folder: Path, known: Sums | None = None, whole: Collection[str] = ()) -> None:
    """Writes the sizes and checksums of the files below `folder`.

    Args:
      known: files that were hashed before, and are not read again.
      whole: subfolders, relative to `folder`, all of whose files are in `known`.
    """
    sums = dict(known or {})
    for path in files_below(folder, whole):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST and name not in sums:
            sums[name] = file_sum(path)
    text = json.dumps(dict(sorted(sums.items())), indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def files_below(folder: Path, without: Collection[str] = ()) -> list[Path]:
    """All files but those in the subfolders `without`. It lists folders and looks at no file, since
    each look takes a request on mounted storage."""
    found: list[Path] = []
    left_out = {folder / name for name in without}
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(top, name) not in left_out]
        found += [Path(top, name) for name in files]
    return sorted(found)


def file_sum(path: Path) -> tuple[int, str]:
    """Size in bytes, and SHA-256."""
    return path.stat().st_size, file_sha256(path)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_damage(
    folder: Path, share: int = 0, shares: int = 1, items: Collection[str] = ()
) -> int | None:
    """Index in the manifest of the first damaged file. None if there is none, -1 if the manifest
    cannot be read. A checkpoint without a manifest counts as undamaged.

    Args:
      share, shares: only part `share` of `shares` is checked, so that the processes of a run divide
        the work. The parts have about equally many bytes.
      items: subfolders of the checkpoint to check; all if empty.
    """
    if not (folder / MANIFEST).exists():
        return None
    held = _read(folder)
    if held is None:
        return -1
    for place in _part(held, share, shares):
        wanted = not items or held[place][0].partition("/")[0] in items
        if wanted and _damage(folder, *held[place]):
            return place
    return None


def _part(held: list[tuple[str, int, str]], share: int, shares: int) -> list[int]:
    """Places of the files of part `share`, in order. The largest files are dealt out first, each to
    the part that has the fewest bytes: no part has more than an even one and the largest file."""
    parts: list[list[int]] = [[] for _ in range(shares)]
    heap = [(0, part) for part in range(shares)]
    for place in sorted(range(len(held)), key=lambda place: -held[place][1]):
        total, part = heapq.heappop(heap)
        parts[part].append(place)
        heapq.heappush(heap, (total + held[place][1], part))
    return sorted(parts[share])


def checkpoint_bytes(folder: Path) -> int | None:
    """Bytes of the checkpoint's files; None if its manifest is missing or damaged."""
    held = _read(folder)
    return None if held is None else sum(size for _, size, _ in held)


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
    for patience in PATIENCE:
        try:
            found = (folder / name).stat().st_size
            if found != size:
                return f"has {found} bytes instead of {size}"
            return None if file_sha256(folder / name) == digest else "has another checksum"
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            time.sleep(patience)
    return problem
