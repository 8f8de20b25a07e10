"""Cleaned, distinct documents, whose texts are in files, to be read in any order.

Memory holds about 162 bytes per document (place, size, digest, and the set of digests that finds
duplicates). This limits the corpus: 100 million documents need 16 GB.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_jax.config import UserError
from llm_jax.data.permutation import mix, seed_key
from llm_jax.data.same_text import key_number
from llm_jax.data.splits import ChosenBy, choose, cut_place

Progress = Callable[[str, int, int | None], None]
"""Called with (phase, done, total or None if not known)."""
INDEX = np.dtype([("digest", "<u8", 2), ("size", "<u8"), ("part", "<u4")])
"""A document of a file of texts: its `reader_key`, its UTF-8 bytes, its part."""
OPEN_FILES = 64


@dataclass
class Part:
    """What was kept of a source under one licence and class."""

    number: int
    documents: int = 0
    bytes: int = 0


class Corpus:
    """The documents that were kept, numbered in the order in which they were added.

    Attributes:
      kept: number of documents that were kept, before any was cut for the held-out text.
      used: number of documents that are not a loss: kept, duplicate, empty and short ones.
      parts: (index of the source, licence, class) → what was kept of it, counted.
      num_bytes: UTF-8 bytes of all texts.
    """

    def __init__(self) -> None:
        self.kept = self.used = self.num_bytes = 0
        self.parts: dict[tuple[int, str, str], Part] = {}
        self._files: list[Path] = []
        self._firsts = [0]
        self._open: OrderedDict[int, int] = OrderedDict()
        self._starts = array("Q")
        self._sizes = array("Q")
        self._digests = array("Q")
        self._part_numbers = array("I")
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._digests)

    def add(
        self, texts: Path, index: np.ndarray, parts: Sequence[tuple[int, str, str]]
    ) -> list[int]:
        """Keeps the documents of the file `texts`, unless an earlier one is the same to a reader.

        Args:
          index: (documents,) of `INDEX`; their texts are in `texts` one after another.
          parts: key in `self.parts` of each part of `index`.

        Returns:
          The places in `index` of those that are not kept.
        """
        new, duplicates = self._new(index["digest"])
        kept = index[new]
        ends = np.cumsum(index["size"])
        self._starts.frombytes((self._firsts[-1] + ends - index["size"])[new].tobytes())
        self._sizes.frombytes(kept["size"].tobytes())
        self._digests.frombytes(kept["digest"][:, 0].tobytes())
        self._part_numbers.frombytes(self._count_parts(kept, parts).tobytes())
        self._files.append(texts)
        self._firsts.append(self._firsts[-1] + int(ends[-1] if len(ends) else 0))
        self.kept += len(kept)
        self.num_bytes += int(kept["size"].sum())
        return duplicates

    def _new(self, digests: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Which documents are new, and the places of the others."""
        raw, seen, duplicates = digests.tobytes(), self._seen, []
        for i in range(len(digests)):
            digest = raw[16 * i : 16 * i + 16]
            if digest in seen:
                duplicates.append(i)
            else:
                seen.add(digest)
        new = np.ones(len(digests), bool)
        new[duplicates] = False
        return new, duplicates

    def _count_parts(self, kept: np.ndarray, keys: Sequence[tuple[int, str, str]]) -> np.ndarray:
        """(documents,) uint32: `number` of each document's part, which is counted."""
        found, first, which, counts = np.unique(
            kept["part"], return_index=True, return_inverse=True, return_counts=True
        )
        sizes = np.zeros(len(found), np.uint64)
        np.add.at(sizes, which, kept["size"])
        numbers = np.zeros(len(found), np.uint32)
        for i in np.argsort(first):  # the order of a part's first document
            part = self.parts.setdefault(keys[found[i]], Part(len(self.parts)))
            part.documents += int(counts[i])
            part.bytes += int(sizes[i])
            numbers[i] = part.number
        return numbers[which]

    def text(self, i: int) -> str:
        """The text of document `i`."""
        return self._bytes(i).decode()

    def _bytes(self, i: int) -> bytes:
        start = self._starts[i]
        number = bisect_right(self._firsts, start) - 1
        start -= self._firsts[number]
        left, parts = self._sizes[i], []
        while left:  # one call reads at most 2 GB
            parts.append(os.pread(self._descriptor(number), left, start))
            start, left = start + len(parts[-1]), left - len(parts[-1])
        return b"".join(parts)

    def _descriptor(self, number: int) -> int:
        """Of the open file of that number; those that were used last stay open."""
        if number not in self._open:
            self._open[number] = os.open(self._files[number], os.O_RDONLY)
        self._open.move_to_end(number)
        if len(self._open) > OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return self._open[number]

    def finish(self) -> None:
        """Call it after the last document."""
        self._seen.clear()

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    @property
    def licences(self) -> Counter[str]:
        """Licence → number of documents kept."""
        counts: Counter[str] = Counter()
        for (_, licence, _), part in self.parts.items():
            counts[licence] += part.documents
        return counts

    def places(self, first: int, last: int) -> np.ndarray:
        """(documents, 3) uint64: file, first byte and size of each text from `first` to `last`."""
        starts = np.array(self._starts[first:last], np.uint64)
        firsts = np.array(self._firsts, np.uint64)
        files = np.searchsorted(firsts, starts, side="right") - 1
        sizes = np.array(self._sizes[first:last], np.uint64)
        return np.stack([files.astype(np.uint64), starts - firsts[files], sizes], axis=1)

    @property
    def digests(self) -> np.ndarray:
        """(documents,) uint64: `key_number` of each text."""
        return np.array(self._digests, np.uint64)

    @property
    def sizes(self) -> np.ndarray:
        """(documents,) uint64: UTF-8 bytes of each text."""
        return np.array(self._sizes, np.uint64)

    @property
    def part_numbers(self) -> np.ndarray:
        """(documents,) uint32: `number` of each document's part."""
        return np.array(self._part_numbers, np.uint32)

    @property
    def source_numbers(self) -> np.ndarray:
        """(documents,) int64: index of each document's source in the list of sources."""
        return np.array([source for source, _, _ in self.parts])[self.part_numbers]

    def shuffled(self, seed: int) -> np.ndarray:
        """All document numbers, ordered by a hash of (text, seed); the order of files is unused."""
        return np.argsort(mix(self.digests ^ seed_key(seed)), kind="stable")

    def hold_out(self, fraction: float) -> tuple[np.ndarray, ChosenBy]:
        """Holds out about `fraction` of the text; see `splits.choose`.

        A document that is cut becomes two, which changes the numbers of those after it.

        Returns:
          (documents,) bool, which ones are held out, and how they were chosen.

        Raises:
          UserError: the corpus is a single character.
        """
        chosen, chosen_by = choose(mix(self.digests), self.sizes, fraction)
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
        self._sizes.insert(i, size)
        self._sizes[i + 1] -= size
        self._digests.insert(i, 0)
        self._part_numbers.insert(i, self._part_numbers[i])
        for part in (i, i + 1):
            self._digests[part] = key_number(self.text(part))
