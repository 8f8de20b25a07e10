"""The records of one open file, whatever its format."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from llm_jax.config.extras import require_packages
from llm_jax.data.sources import csv_rows, html_page, tables, tar_members, walk, warc_records
from llm_jax.data.sources.encodings import encoding_of
from llm_jax.data.sources.formats import ONE_DOCUMENT, TABLES, Format, format_of
from llm_jax.data.sources.json_records import records, too_long
from llm_jax.data.sources.left_out import NOT_TEXT, LeftOut, Unusable
from llm_jax.data.sources.markup import NO_MAIN_TEXT
from llm_jax.data.sources.rows import Row
from llm_jax.data.sources.text_key import OWN, TextKey, metadata_names
from llm_jax.data.sources.unpack import is_compressed, refuse_foreign, unpacked

MAX_DOCUMENT_BYTES = 256_000_000
"""A longer document is left out: 65 KB of zstd can expand to gigabytes."""
EMPTY = "empty"
NEEDS: dict[Format, tuple[str, ...]] = {
    "parquet": ("pyarrow",),
    "arrow": ("pyarrow",),
    "html": ("trafilatura",),
    "warc": ("warcio", "trafilatura"),
}
"""Packages that a format's reader imports."""
HEAD_BYTES = 4096
"""First bytes of the content, which show its format."""


@dataclass(frozen=True)
class Reading:
    """How the files of a source are read.

    Attributes:
      encoding: of files without a byte-order mark.
      text_key: see `TextKey`.
      metadata: paths of the fields that travel with a text.
      max_bytes: a longer document (decompressed) or line is left out.
    """

    encoding: str = "utf-8"
    text_key: str = OWN
    metadata: tuple[str, ...] = ()
    max_bytes: int = MAX_DOCUMENT_BYTES

    @cached_property
    def key(self) -> TextKey:
        return TextKey(self.text_key)

    @cached_property
    def own_key(self) -> TextKey:
        """The key of formats whose records have the text in `OWN`: a template may add to it."""
        return self.key if self.key.is_template else TextKey(OWN)

    @cached_property
    def names(self) -> dict[str, str]:
        """Name of each metadata field → its path."""
        return metadata_names(self.metadata)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Everything that is read of a record."""
        return tuple(dict.fromkeys((*self.key.fields, *self.metadata)))


class Content:
    """One open file.

    Args:
      name: the file's name.
      stream: the file, which can seek; it stays open.

    Attributes:
      format: what it holds.
      is_compressed: whether the file itself is.

    Raises:
      Unusable: suffix, first bytes or size show that it will be left out, so that the rest of a
        huge file need not be read. `NoColumn` if it is a table without a column of `reading`.
      UserError: a package that its format needs is not installed.
    """

    def __init__(self, name: str, stream: BinaryIO, reading: Reading) -> None:
        self._name, self._stream, self._reading = name, stream, reading
        suffix = walk.text_suffix(name)
        if suffix in walk.UNREAD_SUFFIXES:
            raise Unusable(NOT_TEXT, walk.unread(suffix))
        stream.seek(0)
        self.is_compressed = is_compressed(stream.read(HEAD_BYTES))
        stream.seek(0)
        self._head, self._pieces = _peek(self._unpacked())
        refuse_foreign(self._head)
        self.format: Format = format_of(suffix, self._head, reading.key)
        if packages := NEEDS.get(self.format):
            require_packages(f"Reading {name}", *packages)
        if self.format in ("parquet", "arrow"):
            self._check_table()
        elif self.format not in ("tar", "warc"):
            self._check_text()

    def _check_table(self) -> None:
        if self.is_compressed:
            raise Unusable(NOT_TEXT, f"{self.format} data that are compressed once more")
        tables.check(self._stream, self.format, self._reading.paths)

    def _check_text(self) -> None:
        most = self._reading.max_bytes
        if self.format == "html":
            most = min(most, html_page.MOST_BYTES)
        elif not self.is_compressed:
            encoding_of(self._head, self._reading.encoding).refuse_nul(self._head)
        if self.format in ("csv", "tsv"):
            encoding_of(self._head, self._reading.encoding).refuse_utf8(self._head)
            next(self._rows(LeftOut()), None)
            self._head, self._pieces = _peek(self._unpacked())
        if self.format in ONE_DOCUMENT and not self.is_compressed and self._size() > most:
            raise too_long(most)

    def _size(self) -> int:
        here = self._stream.tell()
        size = self._stream.seek(0, 2)
        self._stream.seek(here)
        return size

    def _unpacked(self) -> Iterator[bytes]:
        self._stream.seek(0)
        return unpacked(self._stream, walk.last_suffix(self._name))

    @property
    def may_be_empty(self) -> bool:
        """Whether no record means that there is none, and nothing was passed over."""
        return self.format not in ("html", "warc", "tar")

    def rows(self, left_out: LeftOut) -> Iterator[Row]:
        """The records, in order. What is passed over on purpose is recorded in `left_out`.

        Raises:
          Unusable: all of the file cannot be used, or the rest of it.
        """
        if self.is_compressed and self.format not in ONE_DOCUMENT:
            self._verify()
        if self.format != "tar":
            yield from self._rows(left_out)
            return
        for member, stream in tar_members.members(self._pieces, self._name, left_out):
            path = f"{self._name}/{member}"
            try:
                inner = Content(member, stream, self._reading)
                if inner.format == "tar":
                    raise Unusable(NOT_TEXT, "an archive in an archive")
                row = None
                for row in inner.rows(left_out):
                    yield row._replace(member=member)
                if row is None and inner.may_be_empty:
                    left_out.skip(EMPTY, path)
            except Unusable as error:
                left_out.lose_unusable(error, path)

    def _verify(self) -> None:
        """Raises `Unusable` if compressed data are corrupt anywhere.

        The checksum is at the end, so all is read once before any record is used: a wrong record
        may show no other sign. In a file that only ends too early, the data before its end are
        right.
        """
        try:
            for _ in self._unpacked():
                pass
        except Unusable as error:
            if not error.cut:
                raise
        self._head, self._pieces = _peek(self._unpacked())

    def _rows(self, left_out: LeftOut) -> Iterator[Row]:
        reading, most = self._reading, self._reading.max_bytes
        if self.format in ("parquet", "arrow"):
            encoding = encoding_of(b"", reading.encoding)
            return tables.rows(self._stream, self.format, reading.paths, encoding)
        if self.format == "warc":
            return warc_records.rows(
                self._pieces, reading.paths, reading.encoding, most, self._name, left_out
            )
        if self.format == "html":
            return self._page(left_out)
        encoding = encoding_of(self._head, reading.encoding)
        if self.format == "text":
            text = encoding.decode(self._whole(most))
            return iter([Row(None, {OWN: text}, is_own=True)])
        if self.format in TABLES:
            return csv_rows.rows(self._pieces, self.format, encoding, reading.paths, most)
        return self._json(most)

    def _json(self, most: int) -> Iterator[Row]:
        encoding = encoding_of(self._head, self._reading.encoding)
        encoding.refuse_nul(self._head)
        pieces = self._pieces
        if encoding.wide:
            pieces, encoding = encoding.to_utf8(pieces), encoding_of(b"", "utf-8")
        for line, record in records(pieces, encoding, most):
            yield Row(line, record)

    def _page(self, left_out: LeftOut) -> Iterator[Row]:
        raw = self._whole(min(self._reading.max_bytes, html_page.MOST_BYTES))
        html = html_page.decoded(raw, self._reading.encoding)
        page = html_page.page(html, self._reading.paths)
        if page is None:
            left_out.skip(NO_MAIN_TEXT, self._name)
        else:
            yield Row(None, page, is_own=True)

    def _whole(self, most: int) -> bytes:
        parts, size = [], 0
        for piece in self._pieces:
            size += len(piece)
            if size > most:
                raise too_long(most)
            parts.append(piece)
        return b"".join(parts)


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first `HEAD_BYTES`, or all if there are fewer, and all the pieces again."""
    taken: list[bytes] = []
    try:
        while sum(map(len, taken)) < HEAD_BYTES and (piece := next(pieces, None)) is not None:
            taken.append(piece)
    except Unusable as error:
        pieces = _failing(error)
    return b"".join(taken)[:HEAD_BYTES], itertools.chain(taken, pieces)


def _failing(error: Unusable) -> Iterator[bytes]:
    raise error
    yield
