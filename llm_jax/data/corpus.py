"""Cleaned, distinct documents in a temporary file, to be read in any order.

The texts are on disk. Memory holds about 154 bytes per document (place, size, digest, and the set
of digests that finds duplicates). This limits the corpus: 100 million documents need 15 GB.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_jax.config import UserError
from llm_jax.data.clean import Cleaner
from llm_jax.data.permutation import mix, seed_key
from llm_jax.data.same_text import key_number, reader_key
from llm_jax.data.sources import Document, LeftOut, Source
from llm_jax.data.sources.left_out import CHECK, HALF_CHARACTERS, reasons
from llm_jax.data.splits import ChosenBy, choose, cut_place

Progress = Callable[[str, int, int | None], None]
"""Called with (phase, done, total or None if not known)."""


@dataclass
class Part:
    """What was kept of a source under one licence and class."""

    number: int
    documents: int = 0
    bytes: int = 0


class Corpus:
    """The documents that were kept, numbered in the order in which they were added.

    Attributes:
      left_out: what was not kept, and why.
      kept: number of documents that were kept, before any was cut for the held-out text.
      used: number of documents that are not a loss: kept, duplicate, empty and short ones.
      licences: licence → number of documents kept.
      parts: (index of the source, licence, class) → what was kept of it, counted.
    """

    def __init__(self, spool: Path, left_out: LeftOut) -> None:
        self.left_out = left_out
        self.kept = 0
        self.licences: Counter[str] = Counter()
        self.parts: dict[tuple[int, str, str], Part] = {}
        self.used = 0
        self._file = spool.open("w+b")
        self._starts = array("Q", [0])
        self._digests = array("Q")
        self._part_numbers = array("I")
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, document: Document, cleaner: Cleaner, source_number: int) -> None:
        """Cleans and keeps the document, unless an earlier one is the same to a reader."""
        text = cleaner.clean(document.text)
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            self.left_out.lose(HALF_CHARACTERS, document.source, document.line)
            return
        self.used += 1
        if reason := cleaner.reason_to_drop(text):
            self.left_out.skip(reason, document.source, document.line)
            return
        digest = reader_key(text)
        if digest in self._seen:
            self.left_out.skip("duplicate", document.source, document.line)
            return
        self._seen.add(digest)
        self._file.write(raw)
        self._starts.append(self._starts[-1] + len(raw))
        self._digests.append(int.from_bytes(digest[:8], "little"))
        self.kept += 1
        self.licences[document.licence] += 1
        key = (source_number, document.licence, document.class_)
        part = self.parts.setdefault(key, Part(len(self.parts)))
        part.documents += 1
        part.bytes += len(raw)
        self._part_numbers.append(part.number)

    def text(self, i: int) -> str:
        """The text of document `i`; call `finish` first."""
        return self._bytes(i).decode()

    def _bytes(self, i: int) -> bytes:
        start, parts = self._starts[i], []
        left = self._starts[i + 1] - start
        while left:  # one call reads at most 2 GB
            parts.append(os.pread(self._file.fileno(), left, start))
            start, left = start + len(parts[-1]), left - len(parts[-1])
        return b"".join(parts)

    def finish(self) -> None:
        """Call it after the last document."""
        self._file.flush()
        self._seen.clear()

    def close(self) -> None:
        self._file.close()

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all texts."""
        return self._starts[-1]

    @property
    def sizes(self) -> np.ndarray:
        """(documents,) uint64: UTF-8 bytes of each text."""
        return np.diff(np.array(self._starts))

    @property
    def part_numbers(self) -> np.ndarray:
        """(documents,) uint32: `number` of each document's part."""
        return np.array(self._part_numbers)

    @property
    def source_numbers(self) -> np.ndarray:
        """(documents,) int64: index of each document's source in the list of sources."""
        return np.array([source for source, _, _ in self.parts])[self.part_numbers]

    def shuffled(self, seed: int) -> np.ndarray:
        """All document numbers, ordered by a hash of (text, seed); the order of files is unused."""
        digests = np.array(self._digests, np.uint64)
        return np.argsort(mix(digests ^ seed_key(seed)), kind="stable")

    def hold_out(self, fraction: float) -> tuple[np.ndarray, ChosenBy]:
        """Holds out about `fraction` of the text; see `splits.choose`.

        A document that is cut becomes two, which changes the numbers of those after it.

        Returns:
          (documents,) bool, which ones are held out, and how they were chosen.

        Raises:
          UserError: the corpus is a single character.
        """
        chosen, chosen_by = choose(mix(np.array(self._digests, np.uint64)), self.sizes, fraction)
        if chosen_by != "position":
            return chosen, chosen_by
        tails: list[int] = []
        for place in np.flatnonzero(chosen)[::-1].tolist():
            tails = [place + 1, *(tail + 1 for tail in tails)]
            self._cut(place, cut_place(self._bytes(place), fraction))
        held_out = np.zeros(len(self), bool)
        held_out[tails] = True
        return held_out, chosen_by

    def _cut(self, i: int, size: int) -> None:
        """Cuts document `i` in two, of which the first has `size` bytes."""
        if size == 0:
            raise UserError("The corpus is a single character: give more text.")
        self._starts.insert(i + 1, self._starts[i] + size)
        self._digests.insert(i, 0)
        self._part_numbers.insert(i, self._part_numbers[i])
        for part in (i, i + 1):
            self._digests[part] = key_number(self.text(part))


def read_corpus(
    sources: Iterable[Source],
    cleaner: Cleaner,
    spool: Path,
    progress: Progress,
    left_out: LeftOut,
) -> Corpus:
    """Reads all sources into a `Corpus`, whose texts are in the new file `spool`.

    Raises:
      UserError: no document is left, or more are lost than `left_out` accepts.
    """
    corpus = Corpus(spool, left_out)
    for number, source in enumerate(sources):
        for document in source.documents(left_out):
            corpus.add(document, cleaner, number)
            progress("reading documents", len(corpus), None)
    corpus.finish()
    if len(corpus) == 0:
        raise UserError(f"The corpus is empty: {_why_empty(left_out)}")
    left_out.check(corpus.used)
    return corpus


def _why_empty(left_out: LeftOut) -> str:
    losses = left_out.summary(0)
    if losses["count"]:
        return f"nothing could be used: {reasons(losses)}. {CHECK}."
    if skipped := left_out.dropped():
        counts = ", ".join(f"{reason} {count:,}" for reason, count in skipped.items())
        return f"everything was left out ({counts}); check --input."
    return "no text file was found; check --input."
