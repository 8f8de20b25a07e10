"""One text with what is known of it, and the protocol of all sources of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_jax.config.dataset_info import INTERNAL, Class
from llm_jax.data.sources.left_out import LeftOut


@dataclass(frozen=True, slots=True)
class Document:
    """One text, with its origin, its licence and who may see it.

    Attributes:
      source: path of the file, or a name inside a dataset.
      line: line or row of `source` that holds the text, from 1; None if it is the whole file, or
        not known.
      metadata: what the user named of the text's record, such as url, date, language or id.
      source_name: name of the source in the provenance of a dataset.
      class_: `class` in the provenance: public, internal or restricted.
    """

    text: str
    source: str
    licence: str
    line: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    source_name: str = ""
    class_: Class = INTERNAL


class Source(Protocol):
    """Something that yields documents; `fingerprint` changes when they do.

    `describe` has at least `input`, `name`, `licence`, `class` and `files`, a list of the files
    that were read: `path`, `sha256`, `bytes`.
    """

    @property
    def name(self) -> str: ...

    def fingerprint(self) -> str: ...

    def describe(self) -> dict[str, Any]: ...

    def documents(self, left_out: LeftOut) -> Iterator[Document]: ...
