"""Documents of a file, or of a folder's files, on this machine or behind an address."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.dataset_info import INTERNAL, Class
from llm_jax.config.wording import counted
from llm_jax.data.sources.columns import Columns
from llm_jax.data.sources.content import EMPTY, MAX_DOCUMENT_BYTES, Content, Reading
from llm_jax.data.sources.document import Document
from llm_jax.data.sources.encodings import canonical
from llm_jax.data.sources.hashes import file_record
from llm_jax.data.sources.left_out import UNREADABLE, LeftOut, Unusable, printable
from llm_jax.data.sources.local import LocalFile, local_files, problem
from llm_jax.data.sources.markup import Markup, used_text
from llm_jax.data.sources.remote import is_address, remote_files, shown
from llm_jax.data.sources.remote_file import RemoteFile
from llm_jax.data.sources.rows import Row
from llm_jax.data.sources.text_key import OWN, metadata_of

File = LocalFile | RemoteFile


@dataclass(frozen=True)
class FileSource:
    """A file, or a folder's text files in sorted order, or those that match a pattern with `*`.

    Records of JSON, Parquet, Arrow, CSV and TSV have their text in `text_key`; a page of HTML or in
    a WARC file is its main text; any other file is one document. Names and first bytes show a
    file's format, compression and byte-order mark. In a folder, hidden entries and files without a
    text suffix are skipped; a file that is named itself is not.

    Attributes:
      path: a path, or an address such as `gs://bucket/folder`, which fsspec reads.
      text_key: a field, a path or a template (`TextKey`).
      max_bytes: a longer document (decompressed) or line is left out.
      class_: who may see the text.
      given_name: name in provenance; empty: the path.
      metadata: paths of the fields that travel with a text, under the last part of each path.
      markup: what is taken away from each text.

    Raises:
      UserError: `path` cannot be read, Python does not know the encoding, or `text_key` or
        `metadata` is not well formed.
    """

    path: Path | str
    encoding: str = "utf-8"
    text_key: str = OWN
    licence: str = "unknown"
    max_bytes: int = MAX_DOCUMENT_BYTES
    class_: Class = INTERNAL
    given_name: str = ""
    metadata: tuple[str, ...] = ()
    markup: Markup = "none"
    _records: dict[str, dict[str, Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Name of each file that was read → its path, hash and size."""
    _stamps: dict[int, int | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Hash of each file's name → its stamp when the fingerprint was taken."""

    def __post_init__(self) -> None:
        canonical(self.encoding)
        _ = self._reading.paths, self._reading.names
        if not is_address(self.path):
            path = re.sub(r"^(file|local)://", "", str(self.path))
            object.__setattr__(self, "path", Path(path))
            if why := problem(Path(self.path)):
                raise UserError(why)

    @cached_property
    def _reading(self) -> Reading:
        return Reading(self.encoding, self.text_key, self.metadata, self.max_bytes)

    @property
    def name(self) -> str:
        return self.given_name or self.input

    @property
    def input(self) -> str:
        return shown(self.path) if isinstance(self.path, str) else printable(self.path)

    def files(self, left_out: LeftOut) -> Iterator[File]:
        """All files, in order; those that are passed over are recorded in `left_out`."""
        if isinstance(self.path, str):
            return remote_files(self.path, left_out)
        return local_files(self.path, left_out)

    def fingerprint(self) -> str:
        """Hex digest of names and contents, and of which files cannot be read.

        A file behind an address is not read for it if its file system says which version it is.

        Raises:
          UserError: every file is a table without the columns that are asked for.
        """
        settings = (self.encoding, self.text_key, self.licence, self.max_bytes, self.class_)
        settings += (self.given_name, self.metadata, self.markup)  # type: ignore[assignment]
        digest = hashlib.sha256(repr(settings).encode())
        columns = Columns()
        self._records.clear()
        for file in self.files(LeftOut()):
            digest.update(os.fsencode(file.key))
            if isinstance(file, RemoteFile) and file.version:
                self._stamps[hash(file.name)] = file.stamp()
                digest.update(file.version.encode())
                columns.see(None)
                continue
            try:
                digest.update(bytes.fromhex(self._hashed(file)))
                columns.see(None)
            except (OSError, Unusable) as error:
                columns.see(error)
                digest.update(b"unreadable")
        columns.check(self.input)
        return digest.hexdigest()

    def _hashed(self, file: File) -> str:
        """The sha256 of a file, which is recorded; raises `Unusable` if it will be left out."""
        with file.open() as stream:
            self._stamps[hash(file.name)] = file.stamp(stream)
            Content(file.name, stream, self._reading)
            stream.seek(0)
            self._records[file.name] = file_record(file.name, stream)
        return self._records[file.name]["sha256"]

    def describe(self) -> dict[str, Any]:
        """What provenance says. If no file was read before, all are read for their hashes."""
        if not self._records:
            for file in self.files(LeftOut()):
                with contextlib.suppress(OSError, Unusable):  # a loss, as it is read
                    self._hashed(file)
        return {
            "name": self.name,
            "input": self.input,
            "encoding": self.encoding,
            "text_key": self.text_key,
            "markup": self.markup,
            "licence": self.licence,
            "class": self.class_,
            "files": [self._records[name] for name in sorted(self._records)],
        }

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        columns = Columns()
        for file in self.files(left_out):
            yield from self.documents_of(file, left_out, columns)
        columns.check(self.input)

    def documents_of(self, file: File, left_out: LeftOut, columns: Columns) -> Iterator[Document]:
        """The documents of one of the `files`, which `columns` counts."""
        try:
            yield from self._of_file(file, left_out)
            columns.see(None)
        except Unusable as error:
            columns.see(error)
            left_out.lose_unusable(error, file.name)
        except OSError as error:
            columns.see(error)
            left_out.lose(UNREADABLE, file.name, detail=error.strerror or str(error))

    def settings(self) -> dict[str, Any]:
        """The arguments that make this source again, as JSON."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        return given | {"path": str(self.path), "metadata": list(self.metadata)}

    @classmethod
    def of_settings(cls, settings: dict[str, Any]) -> FileSource:
        """Inverse of `settings`."""
        return cls(**settings | {"metadata": tuple(settings["metadata"])})

    def stamps(self, names: Iterable[str]) -> list[int | None] | None:
        """The stamp of each file when the fingerprint was taken; None if it was not."""
        return [self._stamps.get(hash(name)) for name in names] if self._stamps else None

    def expect(self, names: Iterable[str], stamps: Iterable[int | None] | None) -> None:
        """Takes what `stamps` returned: a file that differs now has changed while it was read."""
        if stamps is not None:
            self._stamps.update(zip(map(hash, names), stamps, strict=True))

    def _of_file(self, file: File, left_out: LeftOut) -> Iterator[Document]:
        with file.open() as stream:
            stamp = file.stamp(stream)
            if self._stamps and self._stamps.get(hash(file.name)) != stamp:
                raise _changed(file)
            if isinstance(file, RemoteFile):
                record = file_record(file.name, stream)
                if self._records.setdefault(file.name, record) != record:
                    raise _changed(file)
            content = Content(file.name, stream, self._reading)
            yield from self._of_content(content, file, left_out)
            if file.stamp(stream) != stamp:
                raise _changed(file)

    def _of_content(self, content: Content, file: File, left_out: LeftOut) -> Iterator[Document]:
        seen = used = 0
        try:
            for row in content.rows(left_out):
                seen += 1
                document = self._document(row, file.name, left_out)
                if document is not None:
                    used += 1
                    yield document
        except Unusable as error:
            if error.cut and used:
                verb = "is" if used == 1 else "are"
                error.detail += f"; {counted(used, 'document')} before that {verb} used"
            raise
        if seen == 0 and content.may_be_empty:
            left_out.skip(EMPTY, file.name)

    def _document(self, row: Row, file: str, left_out: LeftOut) -> Document | None:
        """The document of a row; None if it has none, which is recorded."""
        source = f"{file}/{row.member}" if row.member else file
        text = used_text(lambda: self._text(row), self.markup, left_out, source, row.line)
        if text is None:
            return None
        metadata = metadata_of(row.record, self._reading.names)
        return Document(text, source, self.licence, row.line, metadata, self.name, self.class_)

    def _text(self, row: Row) -> str:
        if isinstance(row.record, Unusable):
            raise row.record
        return (self._reading.own_key if row.is_own else self._reading.key).text(row.record)


def _changed(file: File) -> UserError:
    return UserError(
        f"{printable(file.name)} changed while it was read: run this again when nothing writes to "
        "it."
    )
