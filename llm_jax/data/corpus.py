"""Cleaned, distinct documents in a temporary file, to be read in any order.

The texts lie on disk; memory holds about 154 bytes per document (place, size, digest, and the set
of digests that finds duplicates), which is what bounds a corpus: 100 million documents need 15 GB.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from llm_jax.config import UserError
from llm_jax.data.clean import Cleaner
from llm_jax.data.permutation import mix, seed_key
from llm_jax.data.text import Document, Source

Progress = Callable[[str, int, int | None], None]
"""Called with (phase, done, total or None if not known)."""


class Corpus:
    """The documents that cleaning kept, numbered in the order in which they came.

    Attributes:
      dropped: reason → documents that were not kept.
      licences: licence → documents kept.
      source_numbers: place in the list of sources that each document came from.
    """

    def __init__(self, spool: Path) -> None:
        self.dropped: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.source_numbers = array("I")
        self._file = spool.open("w+b")
        self._starts = array("Q", [0])
        self._digests = array("Q")
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, document: Document, cleaner: Cleaner, source_number: int) -> None:
        """Keeps the cleaned document, or counts why not."""
        text = cleaner.clean(document.text)
        if reason := cleaner.reason_to_drop(text):
            self.dropped[reason] += 1
            return
        raw = text.encode()
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        if digest in self._seen:
            self.dropped["duplicate"] += 1
            return
        self._seen.add(digest)
        self._file.write(raw)
        self._starts.append(self._starts[-1] + len(raw))
        self._digests.append(int.from_bytes(digest[:8], "little"))
        self.licences[document.licence] += 1
        self.source_numbers.append(source_number)

    def text(self, i: int) -> str:
        """The text of document `i`; call `finish` first."""
        start = self._starts[i]
        return os.pread(self._file.fileno(), self._starts[i + 1] - start, start).decode()

    def finish(self) -> None:
        """No more documents come."""
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

    def shuffled(self, seed: int) -> np.ndarray:
        """All document numbers, ordered by a hash of (text, seed): the files' order has no part."""
        digests = np.array(self._digests, np.uint64)
        return np.argsort(mix(digests ^ seed_key(seed)), kind="stable")

    def held_out(self, fraction: float) -> np.ndarray:
        """(documents,) bool: about `fraction` of them, at least one and never all.

        Chosen by the text alone, so that a text stays held out when others come or go.
        """
        rank = mix(np.array(self._digests, np.uint64))
        chosen = rank < np.uint64(fraction * 2**64)
        chosen[rank.argmin()] = True
        chosen[rank.argmax()] = False
        return chosen


def read_corpus(
    sources: Iterable[Source], cleaner: Cleaner, spool: Path, progress: Progress
) -> Corpus:
    """Reads all sources into a `Corpus` whose texts lie in the new file `spool`.

    Raises:
      UserError: no document is left.
    """
    corpus = Corpus(spool)
    for number, source in enumerate(sources):
        for document in source.documents(corpus.dropped):
            corpus.add(document, cleaner, number)
            progress("reading documents", len(corpus), None)
    corpus.finish()
    corpus.dropped += Counter()  # forgets reasons that never happened
    if len(corpus) == 0:
        raise UserError(f"The corpus is empty: {_losses(corpus.dropped)}")
    return corpus


def _losses(dropped: Counter[str]) -> str:
    if not dropped:
        return "no text file was found; check --input."
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
    return f"every document was dropped ({reasons}); check --input and --encoding."
