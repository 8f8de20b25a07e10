"""Files of this machine."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llm_jax.data.sources import walk
from llm_jax.data.sources.left_out import LeftOut, printable
from llm_jax.data.sources.unpack import open_regular


@dataclass(frozen=True)
class LocalFile:
    """One file.

    Attributes:
      name: its path, as errors and provenance have it.
      key: its name below the path that the user gave.
    """

    path: Path
    key: str

    @property
    def name(self) -> str:
        return str(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Raises `Unusable` if it is not a regular file, or cannot be opened."""
        with open_regular(self.path) as stream:
            yield stream

    def stamp(self, stream: BinaryIO) -> int:
        """A number that changes when the file is written to, or replaced."""
        status = os.fstat(stream.fileno())
        return hash((status.st_size, status.st_mtime_ns, status.st_ino))


def local_files(path: Path, left_out: LeftOut) -> Iterator[LocalFile]:
    """The file `path`, those of its folder that may be text, or those that match it if it has `*`
    and does not exist itself."""
    if "*" in str(path) and not path.exists():
        seen: set[Path] = set()
        for match in map(Path, sorted(glob.glob(str(path), recursive=True))):  # noqa: PTH207
            walk.refuse_curated(match)
            if path.name == "**" and match.is_dir():
                continue  # the files in it match too
            for found in local_files(match, left_out):
                if found.path not in seen:
                    seen.add(found.path)
                    yield found
        return
    for file in walk.files(path, left_out):
        key = file.name if file == path else file.relative_to(path).as_posix()
        yield LocalFile(file, key)


def problem(path: Path) -> str | None:
    """Why nothing can be read at `path`; None if it is there."""
    try:
        if "*" in str(path) and glob.glob(str(path), recursive=True):  # noqa: PTH207
            return None
        path.stat()
    except FileNotFoundError:
        return f"--input '{printable(path)}' does not exist: check the path."
    except (OSError, ValueError) as error:
        return f"--input '{printable(path)}' cannot be read ({error}): check the path."
    return None
