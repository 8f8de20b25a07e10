"""Files and folders that appear whole or not at all.

A reader of a path written here sees what was there before or what is there now, never a part. If
writing fails, or the program is interrupted, what was there before is still there and nothing else
is left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from llm_jax.runs.disk_errors import FULL, disk_sentence

PATIENCE = 30
"""Tries to delete an unfinished folder, a tenth of a second apart."""
NAME_BYTES = 255
"""Longest name that file systems take."""


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path to write to, beside `path`, that takes its place when the block ends without an error.

    It has the suffix of `path`, and the permissions that the umask gives. Folders on the way are
    made. A link is followed; a device or a pipe is written in place.

    Args:
      durable: also outlives a power failure. A sign of life that is rewritten every second need
        not.

    Raises:
      OSError: as the operating system says it.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path  # a folder cannot be opened, and a device cannot be replaced
        return
    with parents_of(path):
        temporary = sibling(path)
        try:
            with _named(path, temporary):
                yield temporary
                if durable:
                    _to_disk(temporary)
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes `text` as UTF-8; see `replacing`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_texts(texts: Mapping[Path, str]) -> None:
    """Writes each text to its path; no path changes before all texts could be written."""
    with contextlib.ExitStack() as writing:
        for path, text in texts.items():
            writing.enter_context(replacing(path)).write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Writes `data`; see `replacing`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def keep(path: Path, text: str) -> None:
    """`write_text` of what only saves work later: where it cannot be written, that is said."""
    try:
        write_text(path, text)
    except OSError as error:
        print(
            f"warning: the result is not kept for the next time. {disk_sentence(error)}",
            file=sys.stderr,
        )


@contextlib.contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder beside `out` that takes its place when the block ends without an error.

    The permissions are those that the umask gives.

    Args:
      replace: an `out` that holds something is replaced, and stays until then; else it is an error.

    Raises:
      OSError: as the operating system says it.
    """
    out = Path(os.path.realpath(out))
    with scratch(out) as made:
        yield made
        for path in made.rglob("*"):
            if path.is_file():
                _to_disk(path)
        if replace and out.exists():
            _swap(made, out)
        else:
            made.rename(out)


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, gone after the block; for what is needed to make `path`."""
    with parents_of(path):
        made = sibling(path)
        try:
            with _named(path, made):
                made.mkdir()
                yield made
        finally:
            delete_folder(made)


def sibling(path: Path) -> Path:
    """A hidden name beside `path` that nobody else uses, with its suffix."""
    suffix = path.suffix if len(path.suffix) < 16 else ""
    return path.with_name(f".{short_name(path.name)}.{secrets.token_hex(4)}{suffix}")


def short_name(name: str) -> str:
    """`name`, or a shorter one in its place, to which 55 bytes can be added."""
    raw = os.fsencode(name)
    if len(raw) <= NAME_BYTES - 55:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:8]
    return f"{raw[: NAME_BYTES - 64].decode('utf-8', 'ignore')}-{digest}"


def delete_folder(folder: Path) -> None:
    """Deletes a folder in which others may still be writing: a library's threads after a failure,
    or a task that outlived its killed parent."""
    for _ in range(PATIENCE):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(0.1)


@contextlib.contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Errors about `temporary`, and full disks that have no name, become errors about `path`."""
    try:
        yield
    except OSError as error:
        name = error.filename
        ours = Path(os.fsdecode(name)).is_relative_to(temporary) if name else error.errno in FULL
        if error.errno is None or not ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def parents_of(path: Path) -> Iterator[None]:
    """Makes the folders above `path`; those that were missing go again if the block fails."""
    if path.parent.is_dir():
        yield
        return
    missing = [up for up in path.parents if up.name != ".." and not up.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # one that is not empty any more stays
                folder.rmdir()
        raise


def _swap(made: Path, out: Path) -> None:
    """Renames `made` to `out`; the old `out` goes only after that."""
    old = sibling(out)
    out.rename(old)
    try:
        made.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _to_disk(path: Path) -> None:
    """Waits until the file is stored; what a network file system could not store is raised."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
