"""Documents of a file, or of a folder's files."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from llm_jax.config import UserError
from llm_jax.config.dataset_info import INTERNAL, Class
from llm_jax.data.sources import walk
from llm_jax.data.sources.document import Document
from llm_jax.data.sources.encodings import canonical, encoding_of
from llm_jax.data.sources.hashes import file_record
from llm_jax.data.sources.json_records import records, too_long
from llm_jax.data.sources.left_out import NOT_TEXT, UNREADABLE, LeftOut, Unusable, printable
from llm_jax.data.sources.unpack import is_compressed, open_regular, refuse_foreign, unpacked

MAX_DOCUMENT_BYTES = 256_000_000
"""A longer document is left out: 65 KB of zstd can expand to gigabytes."""
HEAD_BYTES = 4096
"""First bytes of the content, which show its format."""
JSON_BEGINS = re.compile(rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"(?:[^"\\]|\\.)*"\s*:')


@dataclass(frozen=True)
class FileSource:
    """A file, or a folder's text files in sorted order.

    JSON files (`.json`, `.jsonl`, `.ndjson`) hold records, one per line or all in one array, each
    with its text in `text_key`. Any other file is one document, unless it begins like JSON records.
    In a folder, hidden entries and files without a text suffix are skipped; a file that is named
    itself is not. The first bytes of a file show its compression and byte-order mark.

    Attributes:
      max_bytes: a longer document (decompressed) or line is left out.
      given_name: name in provenance; empty: the path.

    Raises:
      UserError: `path` cannot be read, or Python does not know the encoding.
    """

    path: Path
    encoding: str = "utf-8"
    text_key: str = "text"
    licence: str = "unknown"
    max_bytes: int = MAX_DOCUMENT_BYTES
    class_: Class = INTERNAL
    given_name: str = ""
    _files: list[dict[str, Any]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    """Records of the files that could be read when the fingerprint was taken."""
    _stamps: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Hash of each file's name → its `_stamp` when the fingerprint was taken."""

    def __post_init__(self) -> None:
        try:
            self.path.stat()
        except FileNotFoundError:
            raise UserError(
                f"--input '{printable(self.path)}' does not exist: check the path."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"--input '{printable(self.path)}' cannot be read ({error}): check the path."
            ) from None
        canonical(self.encoding)

    @property
    def name(self) -> str:
        return self.given_name or printable(self.path)

    def fingerprint(self) -> str:
        """Hex digest of names and contents, and of which files cannot be read."""
        settings = (self.encoding, self.text_key, self.licence, self.max_bytes)
        settings += (self.class_, self.given_name)
        self._files.clear()
        digest = hashlib.sha256(repr(settings).encode())
        for file in walk.files(self.path, LeftOut()):
            digest.update(os.fsencode(self._name(file)))
            try:
                with open_regular(file) as stream:
                    self._stamps[hash(file)] = _stamp(stream)
                    self._refuse_unread(walk.text_suffix(file), stream)
                    self._files.append(file_record(file, stream))
                digest.update(bytes.fromhex(self._files[-1]["sha256"]))
            except (OSError, Unusable):
                digest.update(b"unreadable")
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        if not self._stamps:
            self.fingerprint()
        return {
            "name": self.name,
            "input": printable(self.path),
            "encoding": self.encoding,
            "licence": self.licence,
            "class": self.class_,
            "files": list(self._files),
        }

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        for file in walk.files(self.path, left_out):
            try:
                yield from self._of_file(file, left_out)
            except Unusable as error:
                left_out.lose_unusable(error, str(file))
            except OSError as error:
                left_out.lose(UNREADABLE, str(file), detail=error.strerror or str(error))

    def _of_file(self, file: Path, left_out: LeftOut) -> Iterator[Document]:
        suffix = walk.text_suffix(file)
        with open_regular(file) as stream:
            stamp = _stamp(stream)
            if self._stamps and self._stamps.get(hash(file)) != stamp:
                raise _changed(file)
            compressed = self._refuse_unread(suffix, stream)
            pieces = unpacked(stream, file.suffix.lower())
            head, pieces = _peek(pieces)
            refuse_foreign(head)
            if self._is_json(suffix, head):
                if compressed:
                    _verify(file)
                yield from self._of_json(file, head, pieces, left_out)
            else:
                yield self._of_text(file, head, pieces)
            if _stamp(stream) != stamp:
                raise _changed(file)

    def _refuse_unread(self, suffix: str, stream: BinaryIO) -> bool:
        """Whether the file is compressed; raises `Unusable` if its suffix, head and size show that
        it will be left out, so that the rest of a huge file is not read."""
        if suffix in walk.UNREAD_SUFFIXES:
            raise Unusable(NOT_TEXT, walk.unread(suffix))
        head = stream.read(HEAD_BYTES)
        stream.seek(0)
        if is_compressed(head):
            return True
        refuse_foreign(head)
        encoding_of(head, self.encoding).refuse_nul(head)
        size = os.fstat(stream.fileno()).st_size
        if size > self.max_bytes and not self._is_json(suffix, head):
            raise too_long(self.max_bytes)
        return False

    def _is_json(self, suffix: str, head: bytes) -> bool:
        """Whether a file holds JSON records: by its suffix, or if that is unknown, by its content.
        A .txt file does if it begins like a record and its head has the text key."""
        if suffix in walk.JSON_SUFFIXES:
            return True
        if suffix in walk.TEXT_SUFFIXES and suffix != ".txt":
            return False
        begins = JSON_BEGINS.match(head) is not None
        return begins and (suffix != ".txt" or f'"{self.text_key}"'.encode() in head)

    def _of_text(self, file: Path, head: bytes, pieces: Iterator[bytes]) -> Document:
        parts, size = [], 0
        for piece in pieces:
            size += len(piece)
            if size > self.max_bytes:
                raise too_long(self.max_bytes)
            parts.append(piece)
        text = encoding_of(head, self.encoding).decode(b"".join(parts))
        return self._document(text, file)

    def _document(self, text: str, file: Path, line: int | None = None) -> Document:
        return Document(
            text, str(file), self.licence, line, source_name=self.name, class_=self.class_
        )

    def _of_json(
        self, file: Path, head: bytes, pieces: Iterator[bytes], left_out: LeftOut
    ) -> Iterator[Document]:
        encoding = encoding_of(head, self.encoding)
        encoding.refuse_nul(head)
        if encoding.wide:
            pieces, encoding = encoding.to_utf8(pieces), encoding_of(b"", "utf-8")
        seen = used = 0
        try:
            for line, record in records(pieces, encoding, self.max_bytes):
                seen += 1
                if isinstance(record, Unusable):
                    left_out.lose(record.reason, str(file), line, record.detail)
                    continue
                text = record.get(self.text_key) if isinstance(record, dict) else None
                if isinstance(text, str):
                    used += 1
                    yield self._document(text, file, line)
                else:
                    left_out.lose(f"no text in {self.text_key!r}", str(file), line)
        except Unusable as error:
            if error.cut:
                error.detail += f"; {used:,} documents before that are used"
            raise
        if seen == 0:
            left_out.skip("empty", str(file))

    def _name(self, file: Path) -> str:
        return file.name if file == self.path else file.relative_to(self.path).as_posix()


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


def _verify(file: Path) -> None:
    """Raises `Unusable` if compressed data are corrupt anywhere.

    The checksum is at the end, so all is read once before any record is used: a wrong record may
    show no other sign. In a file that only ends too early, the data before its end are right.
    """
    with open_regular(file) as stream:
        try:
            for _ in unpacked(stream, file.suffix.lower()):
                pass
        except Unusable as error:
            if not error.cut:
                raise


def _stamp(stream: BinaryIO) -> int:
    """A number that changes when the file is written to, or replaced."""
    status = os.fstat(stream.fileno())
    return hash((status.st_size, status.st_mtime_ns, status.st_ino))


def _changed(file: Path) -> UserError:
    return UserError(
        f"{printable(file)} changed while it was read: run this again when nothing writes to it."
    )
