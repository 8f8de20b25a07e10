"""A file's bytes, decompressed according to its first bytes, whatever its name.

They come in pieces of at most about 32 MB, however large the expanded file is. A file that ends
before its compressed data do is noticed.
"""

from __future__ import annotations

import bz2
import lzma
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from llm_jax.data.sources.left_out import NOT_TEXT, UNREADABLE, Unusable

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)")
XZ = b"\xfd7zXZ\0"
COMPRESSED_SUFFIXES = {
    ".gz": GZIP,
    ".zst": ZSTD,
    ".bz2": b"BZh",
    ".xz": XZ,
    ".tgz": GZIP,
    ".tbz2": b"BZh",
    ".txz": XZ,
}
# Bytes read at a time. Deflate expands at most 1,032 times, zstd a block of 4 bytes to 128 KB,
# bzip2 one of 45 bytes to 900 KB, xz 7,000 times.
GZIP_PIECE, SMALL_PIECE, PLAIN_PIECE = 2**14, 2**10, 2**20
XZ_MEMORY = 2**28
"""Most memory for a dictionary of xz, which a few bytes can ask 4 GB for; `xz -9` takes 65 MB."""
MARK_BYTES = 10
FREE_BYTES, MOST_TIMES = 2**30, 1000
"""Bytes that a file may expand to in any case, and beyond that for each of its bytes; text expands
2 to 50 times."""
FOREIGN = re.compile(
    rb"(?P<zip>PK\x03\x04)|(?P<lz4>\x04\x22M\x18)|(?P<sevenzip>7z\xbc\xaf\x27\x1c)|(?P<pdf>%PDF-)"
)
"""The beginnings of files that are not plain text, although they may hold text."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file. A pipe or a device is not opened, because that could block or act.

    Raises:
      Unusable: it is not a regular file, or cannot be opened.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unusable("not a regular file", "a pipe, a socket or a device")
        return path.open("rb")
    except FileNotFoundError:
        raise Unusable(UNREADABLE, "broken link" if path.is_symlink() else "it is gone") from None
    except OSError as error:
        raise Unusable(UNREADABLE, error.strerror or str(error)) from None


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins with `head` is gzip, zstd, bzip2 or xz."""
    return head.startswith((GZIP, ZSTD, XZ)) or bool(
        ZSTD_SKIPPABLE.match(head) or BZIP2.match(head)
    )


def unpacked(file: BinaryIO, suffix: str) -> Iterator[bytes]:
    """The content of the open `file`, piece by piece, never an empty one.

    Args:
      suffix: last suffix of the file's name. It matters only in files shorter than the mark.

    Raises:
      Unusable: the data are corrupt, end too early (`cut`), are compressed twice, or expand as no
        text does.
    """
    head = file.read(MARK_BYTES)
    file.seek(0)
    mark = COMPRESSED_SUFFIXES.get(suffix, b"")
    if len(head) < len(mark) and mark.startswith(head):
        raise Unusable(UNREADABLE, "ends too early", cut=True)
    if not is_compressed(head):
        return iter(lambda: file.read(PLAIN_PIECE), b"")
    if head.startswith(GZIP):
        return _decompressed(file, GZIP_PIECE, lambda: zlib.decompressobj(31))
    if head.startswith(XZ):
        return _decompressed(
            file, SMALL_PIECE, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)
        )
    if BZIP2.match(head):
        return _decompressed(file, SMALL_PIECE, bz2.BZ2Decompressor)
    return _decompressed(file, SMALL_PIECE, zstandard.ZstdDecompressor().decompressobj)


def _decompressed(file: BinaryIO, size: int, member: Callable[[], Any]) -> Iterator[bytes]:
    """Output of the members (gzip), frames (zstd) or streams (bzip2, xz) that `file` is made of.

    Args:
      size: bytes to read at a time.
      member: makes a decompressor with `eof` and `unused_data`.
    """
    engine, inside, first = member(), False, True
    taken = made = 0
    while data := file.read(size):
        taken += len(data)
        while data := data if inside else data.lstrip(b"\0"):  # zeros may follow a member
            try:
                piece = engine.decompress(data)
            except (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError) as error:
                raise Unusable(UNREADABLE, f"cannot be decompressed ({error})") from None
            if piece and first:
                _refuse_compressed_twice(piece)
                first = False
            made += len(piece)
            if made > FREE_BYTES and made > MOST_TIMES * taken:
                raise Unusable(UNREADABLE, f"expands to over {MOST_TIMES:,} times its size")
            if piece:
                yield piece
            inside = not engine.eof
            data = b"" if inside else engine.unused_data
            engine = engine if inside else member()
    if inside:
        raise Unusable(UNREADABLE, "ends too early", cut=True)


def _refuse_compressed_twice(piece: bytes) -> None:
    if is_compressed(piece[:MARK_BYTES]):
        raise Unusable(NOT_TEXT, "compressed twice")


def refuse_foreign(head: bytes) -> None:
    """Raises `Unusable` if content that begins with `head` is of a format that is not text."""
    if found := FOREIGN.match(head):
        raise Unusable(NOT_TEXT, f"{found.lastgroup} data")
