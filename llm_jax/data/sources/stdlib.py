"""The running Python's standard library as documents."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llm_jax.config.dataset_info import Class
from llm_jax.data.sources.document import Document
from llm_jax.data.sources.hashes import file_record
from llm_jax.data.sources.left_out import UNREADABLE, LeftOut

STDLIB_SUFFIXES = (".py", ".txt", ".rst")
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
"""Folders that are left out. Tests are two thirds of the text, repeat themselves, and are not on
every machine: Debian has a separate package for them."""


@dataclass(frozen=True)
class StdlibSource:
    """The running Python's standard library: sources with their docstrings, `.txt` and `.rst`
    files, and the language reference in `pydoc_data/topics.py` topic by topic.

    Left out: its tests, installed packages, byte code, and `_sysconfigdata*`, which holds this
    machine's compiler flags. Source files are decoded by PEP 263; those that cannot be decoded are
    losses.
    """

    licence = "PSF-2.0"
    class_: ClassVar[Class] = "public"

    @property
    def name(self) -> str:
        return f"Python {platform.python_version()} standard library"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"stdlib")
        for file in self._files():
            digest.update(file.relative_to(_stdlib()).as_posix().encode())
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError:
                digest.update(b"unreadable")
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "input": self.name,
            "encoding": "PEP 263",
            "licence": self.licence,
            "class": self.class_,
            "files": list(self._records()),
        }

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        for file in self._files():
            name = file.relative_to(_stdlib()).as_posix()
            if name == "pydoc_data/topics.py":
                yield from self._topics()
                continue
            try:
                text = _decode_source(file.read_bytes())
            except (SyntaxError, UnicodeDecodeError, LookupError) as error:
                left_out.lose("undecodable source", str(file), detail=str(error))
            except OSError as error:
                left_out.lose(UNREADABLE, str(file), detail=error.strerror or str(error))
            else:
                yield self._document(text, name)

    def _topics(self) -> Iterator[Document]:
        from pydoc_data.topics import topics

        for name in sorted(topics):
            yield self._document(topics[name], f"pydoc_data/topics.py#{name}")

    def _document(self, text: str, name: str) -> Document:
        return Document(text, name, self.licence, source_name=self.name, class_=self.class_)

    def _records(self) -> Iterator[dict[str, Any]]:
        for file in self._files():
            with contextlib.suppress(OSError), file.open("rb") as stream:  # a loss, as it is read
                yield file_record(file.relative_to(_stdlib()).as_posix(), stream)

    def _files(self) -> Iterator[Path]:
        for folder, subfolders, names in os.walk(_stdlib()):
            subfolders[:] = sorted(set(subfolders) - NOT_THE_LIBRARY)
            for name in sorted(names):
                if name.endswith(STDLIB_SUFFIXES) and not name.startswith("_sysconfigdata"):
                    yield Path(folder, name)


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _decode_source(raw: bytes) -> str:
    """Python source by its coding cookie (PEP 263), UTF-8 without one."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    return raw.decode(encoding)
