"""One file behind an address, which is copied to a temporary file to be read.

Formats such as Parquet are read from their end, compressed data are checked before they are used,
and the hash in the provenance is that of what was read. So the largest file must fit on the disk,
and none in memory.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llm_jax.config import UserError, secrets
from llm_jax.data.sources.left_out import UNREADABLE, Unusable
from llm_jax.runs.disk_errors import FULL

TRIES = 3
WAIT_SECONDS = 1.0
"""Before the second try; twice as long before the third."""


class Unreachable(UserError):
    """A network or a service that fails: another try may succeed."""

    exit_code = 1


@dataclass(frozen=True)
class RemoteFile:
    """One file behind an address.

    Attributes:
      name: its address, as errors and provenance have it.
      key: its name below the address that the user gave.
      version: changes whenever its content does; empty if the file system does not say.
      size: in bytes, None if not known.
    """

    file_system: Any
    path: str
    name: str
    key: str
    version: str
    size: int | None

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """A copy of the file, which is gone at the end.

        Raises:
          Unusable: it is gone, or may not be read.
          Unreachable: three tries to read it have failed.
          OSError: the disk is full.
        """
        with tempfile.TemporaryDirectory(prefix="llm-jax-", ignore_cleanup_errors=True) as folder:
            copy = Path(folder, "copy")
            self._fetch(copy)
            with copy.open("rb") as stream:
                yield stream

    def _fetch(self, to: Path) -> None:
        def copied() -> tuple[int, int | None]:
            try:
                self.file_system.get_file(self.path, str(to))
            except FileNotFoundError:
                raise Unusable(UNREADABLE, "it is gone") from None
            except PermissionError as error:
                raise Unusable(UNREADABLE, reason(error)) from None
            return to.stat().st_size, self.size

        _retry(self.name, copied)

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from `begin` to `end`; raises `Unreachable` if three tries have failed."""
        found = bytearray()

        def read() -> tuple[int, int]:
            found[:] = self.file_system.cat_file(self.path, start=begin, end=end)
            return len(found), end - begin

        _retry(self.name, read)
        return bytes(found)

    def stamp(self, stream: BinaryIO | None = None) -> int:
        return hash((self.version, self.size))


def _retry(name: str, attempt: Callable[[], tuple[int, int | None]]) -> None:
    """Calls `attempt` until as many bytes came as there are.

    Args:
      attempt: returns how many came, and how many there are if that is known.

    Raises:
      Unreachable: three tries have failed.
      Unusable, OSError: there is no use in another try.
    """
    for number in range(TRIES):
        if number:
            time.sleep(WAIT_SECONDS * 2 ** (number - 1))
        try:
            came, size = attempt()
        except Unusable:
            raise
        except Exception as error:  # whatever the file system's library raises
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            why = reason(error)
            continue
        if size is None or came == size:
            return
        why = f"{came:,} of {size:,} bytes came"
    raise Unreachable(
        f"{name} cannot be read, in {TRIES} tries ({why}): check the network, and run this again."
    )


def reason(error: BaseException) -> str:
    """The error in one line, without addresses, which may have a key."""
    words = re.sub(r"\S+://\S+", "…", " ".join(str(error).split()))
    return secrets.redact(f"{type(error).__name__}: {words}" if words else type(error).__name__)[
        :200
    ]
