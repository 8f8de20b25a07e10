"""A document on its way through a recipe, and the check that decides about it."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llm_jax.config.dataset_info import INTERNAL, Class
from llm_jax.data.curate.words import words_of
from llm_jax.data.sources import Document

HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates that are not Python's for a byte of a file's name (PEP 383)."""
UNKNOWN = "unknown"
"""Language of a document that no step has identified."""


@dataclass(frozen=True, slots=True)
class Check:
    """A number that a step measured, and the range in which a document is kept.

    Attributes:
      low, high: least and largest value that is kept; None for no bound.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        return (self.low is None or self.value >= self.low) and (
            self.high is None or self.value <= self.high
        )

    @property
    def margin(self) -> float:
        """Distance to the nearest bound, relative to it (absolute for a bound of 0)."""
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        return min(abs(self.value - b) / (abs(b) or 1.0) for b in bounds) if bounds else math.inf


@dataclass
class Draft:
    """A document that steps may change.

    Attributes:
      source: name of the source that it came from.
      file, line: where in the source it was.
      number: its place in the order in which all sources were read; the earlier of two equal
        documents stays.
      language: ISO 639 code, `UNKNOWN` until a step has identified it.
      edits: what was changed in the text → how many times.
      notes: measured numbers that are kept with the document.
    """

    text: str
    source: str = ""
    file: str = ""
    line: int | None = None
    licence: str = "unknown"
    class_: Class = INTERNAL
    number: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    language: str = UNKNOWN
    edits: Counter[str] = field(default_factory=Counter)
    notes: dict[str, float] = field(default_factory=dict)

    def rewrite(self, text: str) -> None:
        """Replaces the text."""
        if text != self.text:
            self.text = text
            for name in ("words", "num_bytes"):
                self.__dict__.pop(name, None)

    @cached_property
    def words(self) -> list[str]:
        """The text's words and punctuation (`words.words_of`)."""
        return words_of(self.text)

    @cached_property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return len(self.text.encode())

    def record(self) -> dict[str, Any]:
        """As a curated folder holds it; what is empty is left out."""
        whole = {
            "text": self.text,
            "source": self.source,
            "file": self.file,
            "line": self.line,
            "licence": self.licence,
            "class": self.class_,
            "number": self.number,
            "language": self.language,
            "metadata": self.metadata,
            "edits": dict(sorted(self.edits.items())),
            "notes": self.notes,
        }
        return {name: value for name, value in whole.items() if value not in (None, {})}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Draft:
        """Inverse of `record`."""
        fields = {**record, "edits": Counter(record.get("edits", {}))}
        fields["class_"] = fields.pop("class")
        return cls(**fields)

    @classmethod
    def of_document(cls, document: Document, source: str, number: int) -> Draft:
        """A document of the source of that name. In what stands beside the text, bytes of a file's
        name that are not UTF-8, and halves of surrogate pairs, become escapes."""
        return cls(
            text=document.text,
            source=source,
            file=_whole(document.source),
            line=document.line,
            licence=_whole(document.licence),
            class_=document.class_,
            number=number,
            metadata={_whole(name): _whole(value) for name, value in document.metadata.items()},
        )


def _whole(text: str) -> str:
    """`text` with escapes for surrogates: \\xNN for what stands for a byte, \\uNNNN for others."""
    text = HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
