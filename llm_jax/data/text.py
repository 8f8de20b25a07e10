"""Where text comes from: files, the Python standard library, or a tfds text set.

A source yields documents one at a time and counts what it could not read in `dropped`. One
document has to fit in memory; a corpus has not.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import sys
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import zstandard

from llm_jax.config import UserError, nearest
from llm_jax.data.tfds import load_tfds, prepare

PROSE = {".txt", ".text", ".md", ".rst", ".org", ".adoc", ".tex"}
SYSTEMS_CODE = {".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".swift", ".cs", ".java"}
SCRIPTS = {".py", ".pyi", ".js", ".ts", ".jsx", ".tsx", ".rb", ".php", ".pl", ".lua", ".sh", ".sql"}
OTHER_CODE = {".kt", ".scala", ".jl", ".r", ".hs", ".ml"}
TEXT_SUFFIXES = PROSE | SYSTEMS_CODE | SCRIPTS | OTHER_CODE
JSONL_SUFFIXES = {".jsonl", ".ndjson"}
STDLIB_SUFFIXES = (".py", ".txt", ".rst")
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
"""Folders that are left out. Tests are two thirds of the text, repeat themselves, and are not on
every machine: Debian has them in a package of their own."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it comes from and under which licence."""

    text: str
    source: str
    licence: str


class Source(Protocol):
    """Something that yields documents; `fingerprint` changes when they do."""

    def fingerprint(self) -> str: ...

    def describe(self) -> dict[str, Any]: ...

    def documents(self, dropped: Counter[str]) -> Iterator[Document]: ...


@dataclass(frozen=True)
class FileSource:
    """A file, or a folder's text files in sorted order; JSONL is one document per line.

    In a folder, hidden entries and files whose suffix is not known as text are dropped (counted);
    a file that is named itself is always read. `.gz` and `.zst` are read through.

    Raises:
      UserError: `path` does not exist, or Python knows no such encoding.
    """

    path: Path
    encoding: str = "utf-8"
    text_key: str = "text"
    licence: str = "unknown"

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise UserError(f"--input {str(self.path)!r} does not exist: check the path.")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise UserError(
                f"--encoding is {self.encoding!r}, which Python does not know: try utf-8 or cp932."
            ) from None

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.encoding} {self.text_key} {self.licence}".encode())
        for file in self._files(Counter()):
            digest.update(os.fsencode(self._name(file)))
            digest.update(_file_sha256(file))
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "input": str(self.path),
            "encoding": self.encoding,
            "licence": self.licence,
            "files": sum(1 for _ in self._files(Counter())),
        }

    def documents(self, dropped: Counter[str]) -> Iterator[Document]:
        for file in self._files(dropped):
            name, suffix = self._name(file), _text_suffix(file)
            if suffix in JSONL_SUFFIXES:
                yield from self._json_lines(file, name, dropped)
                continue
            try:
                with _open(file) as stream:
                    text = stream.read().decode(_bom_aware(self.encoding))
            except UnicodeDecodeError:
                dropped[f"not {self.encoding}"] += 1
            except (OSError, EOFError, zstandard.ZstdError):
                dropped["unreadable file"] += 1
            else:
                yield Document(text, name, self.licence)

    def _json_lines(self, file: Path, name: str, dropped: Counter[str]) -> Iterator[Document]:
        try:
            with _open(file) as stream:
                for number, line in enumerate(stream, 1):
                    if not line.strip():
                        continue
                    reason, text = self._json_text(line)
                    if reason:
                        dropped[reason] += 1
                    else:
                        yield Document(text, f"{name}:{number}", self.licence)
        except (OSError, EOFError, zstandard.ZstdError):
            dropped["unreadable file"] += 1

    def _json_text(self, line: bytes) -> tuple[str, str]:
        """(reason for dropping or "", text)."""
        try:
            record = json.loads(line.decode(_bom_aware(self.encoding)))
        except UnicodeDecodeError:
            return f"not {self.encoding}", ""
        except (json.JSONDecodeError, RecursionError):
            return "line is not JSON", ""
        text = record.get(self.text_key) if isinstance(record, dict) else None
        return ("", text) if isinstance(text, str) else (f"no text in {self.text_key!r}", "")

    def _files(self, dropped: Counter[str]) -> Iterator[Path]:
        if self.path.is_file():
            yield self.path
            return
        for folder, subfolders, names in os.walk(self.path):
            subfolders[:] = [name for name in subfolders if name != "__pycache__"]  # byte code
            visible = sorted(name for name in subfolders if not name.startswith("."))
            dropped["hidden"] += len(subfolders) - len(visible)
            subfolders[:] = visible
            for name in sorted(names):
                file = Path(folder, name)
                if name.startswith("."):
                    dropped["hidden"] += 1
                elif _text_suffix(file) not in TEXT_SUFFIXES | JSONL_SUFFIXES:
                    dropped["not a text file's suffix"] += 1
                else:
                    yield file

    def _name(self, file: Path) -> str:
        return file.name if file == self.path else file.relative_to(self.path).as_posix()


@dataclass(frozen=True)
class StdlibSource:
    """The running Python's standard library: sources with their docstrings, `.txt` and `.rst`
    files, and the language reference in `pydoc_data/topics.py` topic by topic.

    Left out: its tests, installed packages, byte code, and `_sysconfigdata*`, which holds this
    machine's compiler flags. Source files are decoded by PEP 263; those in no encoding that Python
    accepts are dropped and counted.
    """

    licence = "PSF-2.0"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"stdlib")
        for file in self._files():
            digest.update(file.relative_to(_stdlib()).as_posix().encode())
            digest.update(_file_sha256(file))
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "input": f"Python {platform.python_version()} standard library",
            "encoding": "PEP 263",
            "licence": self.licence,
            "files": sum(1 for _ in self._files()),
        }

    def documents(self, dropped: Counter[str]) -> Iterator[Document]:
        for file in self._files():
            name = file.relative_to(_stdlib()).as_posix()
            if name == "pydoc_data/topics.py":
                yield from self._topics()
                continue
            try:
                text = _decode_source(file.read_bytes())
            except (SyntaxError, UnicodeDecodeError, LookupError):
                dropped["undecodable source"] += 1
            else:
                yield Document(text, name, self.licence)

    def _topics(self) -> Iterator[Document]:
        from pydoc_data.topics import topics

        for name in sorted(topics):
            yield Document(topics[name], f"pydoc_data/topics.py#{name}", self.licence)

    def _files(self) -> Iterator[Path]:
        for folder, subfolders, names in os.walk(_stdlib()):
            subfolders[:] = sorted(set(subfolders) - NOT_THE_LIBRARY)
            for name in sorted(names):
                if name.endswith(STDLIB_SUFFIXES) and not name.startswith("_sysconfigdata"):
                    yield Path(folder, name)


@dataclass(frozen=True)
class TfdsSource:
    """A registered tfds set that has a text feature, prepared on first use.

    Args:
      name: as tfds takes it: `name`, `name/config` or `name/config:1.2.3`.
      text_key: the feature that holds the text.
      data_dir: where tfds keeps prepared sets; None is its default.
    """

    name: str
    split: str = "train"
    text_key: str = "text"
    data_dir: Path | None = None
    licence: str = ""

    def fingerprint(self) -> str:
        info = self._builder().info
        parts = (info.full_name, self.split, self.text_key, str(info.splits[self.split]))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        info = self._builder().info
        return {
            "input": f"tfds {info.full_name}, split {self.split}",
            "encoding": "utf-8",
            "licence": self._licence(),
            "files": info.splits[self.split].num_shards,
        }

    def documents(self, dropped: Counter[str]) -> Iterator[Document]:
        builder, licence = self._builder(), self._licence()
        for i, record in enumerate(builder.as_data_source(split=self.split)):
            try:
                text = record[self.text_key].decode("utf-8")
            except UnicodeDecodeError:
                dropped["not utf-8"] += 1
            else:
                yield Document(text, f"{builder.info.full_name}/{self.split}/{i}", licence)

    def _licence(self) -> str:
        return self.licence or self._builder().info.redistribution_info.license or "unknown"

    def _builder(self) -> Any:
        """The prepared builder, checked to have the split and the text."""
        tfds = load_tfds()
        data_dir = None if self.data_dir is None else str(self.data_dir)
        try:
            builder = tfds.builder(self.name, data_dir=data_dir, file_format="array_record")
            prepare(builder, messages=sys.stderr)
        except tfds.core.DatasetNotFoundError:
            raise UserError(
                f"--tfds is {self.name!r}: tfds has no such set; `tfds.list_builders()` lists them."
            ) from None
        except ImportError as error:
            raise UserError(
                f"Preparing the tfds set {self.name!r} needs a package that is missing ({error}): "
                "try `pip install llm-jax[tfds-public]`."
            ) from None
        if self.split not in builder.info.splits:
            known = ", ".join(builder.info.splits)
            raise UserError(f"--tfds-split is {self.split!r}: {self.name} has {known}.")
        features = builder.info.features
        if self.text_key not in features:
            raise UserError(
                f"--text-key is {self.text_key!r}, which {self.name} has not: "
                f"{nearest(self.text_key, features)}"
            )
        return builder


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _decode_source(raw: bytes) -> str:
    """Python source by its coding cookie (PEP 263), UTF-8 without one."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    return raw.decode(encoding)


def _text_suffix(file: Path) -> str:
    """The suffix below a compression's: `.jsonl` of `a.jsonl.gz`, in lower case."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(file: Path) -> BinaryIO:
    suffix = file.suffix.lower()
    if suffix == ".gz":
        return gzip.open(file, "rb")  # type: ignore[return-value]
    if suffix == ".zst":
        return io.BufferedReader(zstandard.open(file, "rb"))
    return file.open("rb")


def _bom_aware(encoding: str) -> str:
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


def _file_sha256(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
