"""Lists of the user's: domains and words of addresses, and words of texts."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from llm_jax.config import UserError, read_text, require
from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.step import Checks, Step

SPLIT = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Url(Step):
    """Drops documents by the address in a field of their metadata.

    Attributes:
      field: metadata that holds the address. Documents without it are kept and counted.
      domains: file of domains, one a line; a subdomain is blocked with its domain. Upper and lower
        case are the same in domains and words.
      addresses: file of whole addresses.
      words: file of words, none of which may be between two marks of the address.
      soft_words: file of words of which an address may have fewer than `soft_most`.
    """

    kind: Literal["url"] = "url"
    field: str = "url"
    domains: str = ""
    addresses: str = ""
    words: str = ""
    soft_words: str = ""
    soft_most: int = 2

    def __post_init__(self) -> None:
        require(
            bool(self.files()),
            "url has no list: set url.domains, url.addresses, url.words or url.soft_words to a "
            "file with one entry a line.",
        )

    def files(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.domains, self.addresses, self.words, self.soft_words)))

    def prepare(self, folder: Path) -> None:
        for file in self.files():
            entries(file)
        for name in ("words", "soft_words"):
            for word in sorted(_in_lower_case(getattr(self, name))):
                require(
                    SPLIT.search(word) is None,
                    f"url.{name} has {word!r}, which no address can have: an address is cut at all "
                    "but a-z and 0-9.",
                )

    def check(self, draft: Draft) -> Checks:
        address = draft.metadata.get(self.field, "")
        if not address:
            draft.edits["url: no address"] += 1
            return
        yield Check("blocked addresses", address in entries(self.addresses), high=0)
        host = _host(address)
        parts = host.split(".")
        names = {".".join(parts[i:]) for i in range(len(parts))}
        yield Check("blocked domains", len(names & _in_lower_case(self.domains)), high=0)
        words = set(SPLIT.split(address.lower()))
        yield Check("blocked words in the address", len(words & _in_lower_case(self.words)), high=0)
        soft = len(words & _in_lower_case(self.soft_words))
        yield Check("doubtful words in the address", soft, high=self.soft_most - 1)


@dataclass(frozen=True, kw_only=True)
class Words(Step):
    """Drops documents with more than `most` hits of the words in `file`, one a line.

    Words of letters and digits (ASCII) are found as whole words in any case, others anywhere.
    llm-jp-corpus keeps up to 3 hits of lists of adult, discriminating and violent words, and up
    to 10 of advertising ones.

    Attributes:
      name: of the list, for the report.
    """

    kind: Literal["words"] = "words"
    file: str
    name: str = "listed"
    most: int = 3

    def files(self) -> tuple[str, ...]:
        return (self.file,)

    def prepare(self, folder: Path) -> None:
        if not entries(self.file):
            raise UserError(f"words.file {self.file!r} has no words: write one a line.")

    def ready(self, folder: Path) -> Any:
        return _Hits(self, _pattern(entries(self.file)))

    def check(self, draft: Draft) -> Checks:
        return self.ready(Path()).check(draft)


@dataclass(frozen=True)
class _Hits:
    step: Words
    find: Callable[[str], list[str]]

    def check(self, draft: Draft) -> Checks:
        hits = len(self.find(draft.text))
        yield Check(f"hits of {self.step.name} words", hits, high=self.step.most)


@functools.cache
def entries(file: str) -> frozenset[str]:
    """The lines of `file` that are not empty and do not begin with #; none for no file."""
    if not file:
        return frozenset()
    lines = map(str.strip, read_text(file).splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


@functools.cache
def _in_lower_case(file: str) -> frozenset[str]:
    return frozenset(entry.lower() for entry in entries(file))


@functools.cache
def _pattern(words: frozenset[str]) -> Callable[[str], list[str]]:
    """Finds the longest word at each place."""
    ordered = sorted(words, key=lambda word: (-len(word), word))
    parts = [
        rf"(?<![A-Za-z0-9_]){w}(?![A-Za-z0-9_])" if w.isascii() and w.isalnum() else re.escape(w)
        for w in ordered
    ]
    return re.compile("|".join(parts), re.IGNORECASE).findall


def _host(address: str) -> str:
    try:
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:  # a bracket that is not closed
        return ""
    return host.lower().rstrip(".")
