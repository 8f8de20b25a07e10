"""A curated folder as sources of documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.data.curate import shards
from llm_jax.data.provenance import FILES_FILE
from llm_jax.data.sources import Document, LeftOut, walk
from llm_jax.data.sources.hashes import file_record

INFO, DOCUMENTS = walk.CURATION, walk.CURATED_DOCUMENTS
FORMAT = 2
"""Raised whenever the same inputs come to give other documents."""
WAY_OUT = "restore it, or curate again with --overwrite"
SHARD = re.compile(rf"{DOCUMENTS}/\w[\w.]*")
SHAPE: dict[str, Any] = {
    "format": int,
    "fingerprint": str,
    "documents": {"in": int, "out": int},
    "lost": {"count": int, "of": int, "reasons": {str: {"count": int, "first": str}}},
    "sources": [{"name": str}],
    "shards": [{"file": str, "documents": int, "sources": {str: int}, "sha256": str}],
}


def is_curated(path: Path) -> bool:
    """Whether `path` is a folder that `llm-jax data curate` has written."""
    return (path / INFO).is_file()


def read_info(folder: Path) -> dict[str, Any]:
    """The curation.json in `folder`; raises `UserError` if it is damaged or of a newer version."""
    path = folder / INFO
    info = read_json(path)
    try:
        require_shape(info, SHAPE)
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}): {WAY_OUT}.") from None
    for shard in info["shards"]:
        if not SHARD.fullmatch(shard["file"]):
            raise UserError(f"{path} names the file {shard['file']!r}: it must be in {DOCUMENTS}/.")
    if info["format"] > FORMAT:
        raise UserError(
            f"{path} has format {info['format']}, and this version knows {FORMAT}: update llm-jax."
        )
    return info


@dataclass(frozen=True)
class CuratedSource:
    """The documents that one source gave a curated folder, each with its licence and metadata.

    Attributes:
      described: what the source said of itself when it was curated, with all of its files.
      files: path in the folder of each file that holds documents of it → its sha256.
    """

    folder: Path
    name: str
    described: dict[str, Any]
    fingerprint_: str
    files: Mapping[str, str]

    def fingerprint(self) -> str:
        return f"{self.fingerprint_} {self.name}"

    def describe(self) -> dict[str, Any]:
        return {**self.described, "curation": self.fingerprint_}

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Raises `UserError` if a file is not as it was written."""
        for file, sha256 in self.files.items():
            _require_whole(self.folder / file, sha256)
            for draft in shards.read(self.folder / file):
                if draft.source == self.name:
                    yield Document(
                        text=draft.text,
                        source=draft.file,
                        licence=draft.licence,
                        line=draft.line,
                        metadata={"language": draft.language, **draft.metadata},
                        source_name=draft.source,
                        class_=draft.class_,
                    )

    def settings(self, files: Iterable[str]) -> dict[str, Any]:
        """What another process needs to read some of the `files`, as JSON."""
        return {
            "folder": str(self.folder),
            "name": self.name,
            "files": {file: self.files[file] for file in files},
        }

    @classmethod
    def of_settings(cls, settings: dict[str, Any]) -> CuratedSource:
        """A source of just the documents that `settings` was asked for."""
        return cls(Path(settings["folder"]), settings["name"], {}, "", settings["files"])


def curated_sources(folder: Path) -> list[CuratedSource]:
    """A source for each one that gave documents to the curated `folder`."""
    info = read_info(folder)
    read = _files_read(folder / FILES_FILE)
    made = []
    for name, described in {one["name"]: one for one in info["sources"]}.items():
        files = {one["file"]: one["sha256"] for one in info["shards"] if one["sources"].get(name)}
        if files:
            described = {**described, "files": read.get(name, [])}
            made.append(CuratedSource(folder, name, described, info["fingerprint"], files))
    return made


def _files_read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Name of each source → its lines in files.jsonl."""
    found: dict[str, list[dict[str, Any]]] = {}
    if not path.is_file():
        raise UserError(f"{path} is missing: {WAY_OUT}.")
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for row in map(json.loads, lines):
                found.setdefault(row.pop("source"), []).append(row)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): {WAY_OUT}.") from None
    return found


def _require_whole(path: Path, sha256: str) -> None:
    """Raises `UserError` unless `path` has this hash."""
    if path.is_file():
        with path.open("rb") as stream:
            if file_record(path, stream)["sha256"] == sha256:
                return
        problem = "is not what `llm-jax data curate` wrote"
    else:
        problem = "is missing"
    raise UserError(f"{path} {problem}: {WAY_OUT}.")
