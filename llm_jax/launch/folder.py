"""The output folder as a small object store: a local path, or `gs://bucket/prefix`.

Everything that a job knows about itself lives here, so that any machine that can read the folder
can watch, stop or take over the job. Only operations that both stores do atomically are offered.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from llm_jax.config import UserError, open_regular, read_bytes
from llm_jax.runs.files import sibling, write_bytes

MOST_BYTES = 1 << 30
"""Of one file; the largest are metrics and code bundles."""


class Folder(Protocol):
    """Names are relative, with `/` between parts. Every method raises `OSError` on failure."""

    address: str

    def read(self, name: str) -> bytes | None:
        """Content, or None where there is no such name."""

    def write(self, name: str, data: bytes) -> None:
        """Whole replacement: a reader sees the old or the new content, never a mixture."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes only if the name is free; False if it was taken. At most one caller wins."""

    def delete(self, name: str) -> None: ...

    def read_many(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """Each name → what `read` returns; a bucket's are read side by side."""

    def names(self, prefix: str, after: str = "") -> dict[str, str]:
        """Names below the folder `prefix` → a version, a whole number that rises with each write.

        Args:
          after: leaves out the names that sort before this one; a bucket does not list them.
        """

    def append(self, name: str, data: bytes) -> None:
        """Adds to a log; one writer per name."""

    def read_log(self, name: str, start: int) -> bytes:
        """What `append` has written to `name` from byte `start` on; empty if nothing."""


def open_folder(address: str) -> Folder:
    """The folder at a local path or a `gs://` address; nothing is created or checked yet."""
    if not address.startswith("gs://"):
        return LocalFolder(address)
    from llm_jax.launch.bucket import BucketFolder

    return BucketFolder(address)


def real_path(address: str) -> Path:
    """Absolute, links followed, `~` as the home folder.

    Raises:
      UserError: it begins with the home of somebody who is not known.
    """
    try:
        return Path(os.path.realpath(Path(address).expanduser()))
    except RuntimeError as error:
        raise UserError(
            f"The folder {address!r} cannot be found ({error}): give its path."
        ) from None


class LocalFolder:
    def __init__(self, address: str) -> None:
        self.path = real_path(address)
        self.address = str(self.path)

    def read(self, name: str) -> bytes | None:
        try:
            return read_bytes(self.path / name, MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _make_parent(self, name: str) -> None:
        """`launch/` can only be entered by its owner: it holds the environment and the logs."""
        if name.startswith("launch/"):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "launch").mkdir(mode=0o700, exist_ok=True)
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        self._make_parent(name)
        write_bytes(self.path / name, data, durable=False)

    def create(self, name: str, data: bytes) -> bool:
        target = self.path / name
        self._make_parent(name)
        temporary = sibling(target)
        try:
            temporary.write_bytes(data)
            # A hard link fails if the name exists, also on NFS, where O_EXCL once did not.
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def read_many(self, names: Sequence[str]) -> dict[str, bytes | None]:
        return {name: self.read(name) for name in names}

    def names(self, prefix: str, after: str = "") -> dict[str, str]:
        found: dict[str, str] = {}
        for path in sorted((self.path / prefix).rglob("*")):
            name = path.relative_to(self.path).as_posix()
            try:
                if name >= after and path.is_file() and not path.name.startswith("."):
                    found[name] = str(path.stat().st_mtime_ns)
            except FileNotFoundError:
                continue  # it was replaced or deleted since it was listed
        return found

    def append(self, name: str, data: bytes) -> None:
        target = self.path / name
        self._make_parent(name)
        with target.open("ab") as file:
            file.write(data)

    def read_log(self, name: str, start: int) -> bytes:
        try:
            with open_regular(self.path / name) as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""


def check_writable(folder: Folder) -> None:
    """Raises `UserError` unless a small object can be created in and deleted from the folder."""
    probe = f"launch/probe-{uuid.uuid4().hex}"
    try:
        folder.create(probe, b"")
        folder.delete(probe)
    except OSError as error:
        raise UserError(
            f"The output folder {folder.address} cannot be written "
            f"({error.strerror or error}): choose another, or change its permissions."
        ) from None
