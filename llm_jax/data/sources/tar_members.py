"""The files in a tar archive, one after the other; nothing is written under a member's name."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from llm_jax.data.sources import walk
from llm_jax.data.sources.left_out import UNREADABLE, LeftOut, Unusable
from llm_jax.data.sources.pieces import PiecesFile

IN_MEMORY = 2**24
"""A larger member goes through a temporary file."""
BLOCK = 512


def members(pieces: Iterator[bytes], name: str, left_out: LeftOut) -> Iterator[tuple[str, Any]]:
    """(name, file that can seek) of each member that may be text; a file is open until the next.

    Members are chosen as the files of a folder are, and what is passed over is counted. Links are
    skipped: what they lead to is read under its own name.

    Raises:
      Unusable: the archive ends too early (`cut`) or is damaged.
    """
    file = PiecesFile(pieces)
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it keeps all of them
                path = f"{name}/{member.name}"
                if not _is_read(member, path, left_out):
                    continue
                with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy:
                    _copy(archive, member, copy)
                    yield member.name, copy
    except tarfile.ReadError as error:
        if "unexpected end" in str(error) or "truncated" in str(error):
            raise Unusable(UNREADABLE, "ends too early", cut=True) from None
        raise Unusable(UNREADABLE, f"damaged archive ({error})") from None
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise Unusable(UNREADABLE, f"damaged archive ({error})") from None
    while file.read(1 << 20):
        pass
    if file.tail.strip(b"\0"):  # an archive ends with blocks of zeros
        raise Unusable(UNREADABLE, "ends too early", cut=True)


def _is_read(member: tarfile.TarInfo, path: str, left_out: LeftOut) -> bool:
    """Whether a member may be text; if not, it is recorded here."""
    if member.isdir():
        return False
    hidden = any(
        part.startswith(".") and part not in (".", "..") for part in member.name.split("/")
    )
    if walk.BYTE_CODE in member.name.split("/"):
        return False
    if hidden:
        left_out.skip("hidden", path)
    elif member.issym() or member.islnk():
        left_out.skip("link in an archive", path)
    elif not member.isreg() or member.issparse():  # a sparse one can claim any size
        left_out.lose("not a regular file", path, detail="a device, or a sparse file")
    else:
        return walk.is_read(member.name, path, left_out)
    return False


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, to: IO[bytes]) -> None:
    source = archive.extractfile(member)
    assert source is not None  # a regular file
    left = member.size
    while left and (part := source.read(min(left, 1 << 20))):
        left -= len(part)
        to.write(part)
    if left:
        raise Unusable(UNREADABLE, "ends too early", cut=True)
    to.seek(0)
