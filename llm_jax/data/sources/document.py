"""One text, and the protocol of all sources of texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from llm_jax.data.sources.left_out import LeftOut


@dataclass(frozen=True, slots=True)
class Document:
    """One text, with its origin and its licence.

    Attributes:
      source: path of the file, or a name inside a dataset.
      line: line of `source` that holds the text, from 1; None if it is the whole file, or not
        known.
    """

    text: str
    source: str
    licence: str
    line: int | None = None


class Source(Protocol):
    """Something that yields documents; `fingerprint` changes when they do."""

    def fingerprint(self) -> str: ...

    def describe(self) -> dict[str, Any]: ...

    def documents(self, left_out: LeftOut) -> Iterator[Document]: ...
