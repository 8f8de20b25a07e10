"""The token streams of the splits, gathered from the shards that tasks have tokenised."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from llm_jax.data.building.encode import give_documents, token_dtype
from llm_jax.data.building.work import Work
from llm_jax.data.corpus import Corpus, Progress
from llm_jax.data.fidelity import choose_documents, reports
from llm_jax.data.sources import Source
from llm_jax.data.splits import ChosenBy
from llm_jax.data.tasks.program import load_array
from llm_jax.data.tasks.spread import Spread
from llm_jax.data.tokenizers import Tokenizer

SHARD_BYTES = 16_000_000, 64_000_000
"""Least and most text that a task tokenises: a quarter of what is left, so that the last tasks are
short. It must not depend on the number of processes: a build that was killed may resume with
another."""


class Splits(NamedTuple):
    """Numbers of the documents of each split, in a random order, and how they were chosen."""

    train: np.ndarray
    validation: np.ndarray
    chosen_by: ChosenBy


class Encoded:
    """The tokens of a corpus, in the files of several shards.

    Attributes:
      tokens: (documents,) int64, tokens of each document.
      bytes: (documents,) int64, UTF-8 bytes that they stand for.
      keys: (documents,) uint64, `key_number` of each text, as it was tokenised.
      special: documents that spell a special token, which is text in them.
      changed: number of a document that was compared → how its tokens differ from its text.
    """

    def __init__(self, work: Work, bounds: Sequence[int], dtype: np.dtype) -> None:
        """
        Args:
          bounds: the number of the first document of each shard, and of all documents.
        """
        self.special, self.changed = 0, dict[int, dict[str, Any]]()
        self._files: list[np.ndarray] = []
        counts, keys = [], []
        for shard, first in enumerate(bounds[:-1]):
            result = work.result("encode", shard)
            self.special += result["special"]
            for place, other in result["changed"].items():
                self.changed[first + int(place)] = other
            counts.append(load_array(work.path("encode", shard, "counts.npy")))
            keys.append(load_array(work.path("encode", shard, "keys.npy")))
            self._files.append(np.memmap(work.path("encode", shard, "tokens"), dtype, mode="r"))
        self.tokens, self.bytes = np.concatenate(counts).T
        self.keys = np.concatenate(keys)
        self._starts = np.concatenate([[0], np.cumsum(self.tokens)])
        self._firsts = [int(self._starts[bound]) for bound in bounds]

    def document(self, number: int) -> np.ndarray:
        """The tokens of a document."""
        start = int(self._starts[number])
        shard = bisect_right(self._firsts, start) - 1
        start -= self._firsts[shard]
        return self._files[shard][start : start + int(self.tokens[number])]


class Stream:
    """The tokens of documents, one after another: `<s> document </s> …`.

    Args:
      which: numbers of the documents, in order.
      end: tokens after the last one.
    """

    def __init__(self, encoded: Encoded, which: np.ndarray, end: Sequence[int], dtype: np.dtype):
        self.dtype = dtype
        self._encoded, self._which = encoded, which
        self._ends = np.cumsum(encoded.tokens[which])
        self._end = np.array(end, dtype)
        self._size = int(self._ends[-1]) if len(which) else 0

    def __len__(self) -> int:
        return self._size + len(self._end)

    def __getitem__(self, tokens: slice) -> np.ndarray:
        """A copy of a slice without a step."""
        start, stop, _ = tokens.indices(len(self))
        place = int(np.searchsorted(self._ends, start, side="right"))
        parts, at = [], int(self._ends[place - 1]) if place else 0
        first = at
        while at < min(stop, self._size):
            parts.append(self._encoded.document(self._which[place]))
            at, place = at + len(parts[-1]), place + 1
        if stop > self._size:
            parts.append(self._end)
        made = np.concatenate(parts) if parts else self._end[:0]
        return made[start - first : stop - first]


def tokenise(
    corpus: Corpus,
    tokenizer: Tokenizer,
    splits: Splits,
    sources: Sequence[Source],
    work: Work,
    spread: Spread,
    progress: Progress,
) -> tuple[dict[str, Stream], dict[str, Any]]:
    """The token stream of each split, and the counts.

    `part_tokens` has the tokens of each of the corpus's `parts`.
    """
    tokenizer.save(work.tokenizer)
    chosen = choose_documents(corpus, sources)
    compared = np.zeros(len(corpus), np.uint64)
    for one in chosen:
        compared[one.numbers] = 1
    encoded = _encode(corpus, compared, tokenizer, work, spread, progress)
    documents = {"train": splits.train, "validation": splits.validation}
    ends = [tokenizer.eos_id] if tokenizer.marks.shared else []
    streams = {
        split: Stream(encoded, which, ends, token_dtype(tokenizer))
        for split, which in documents.items()
    }
    counts = {
        split: {
            "documents": len(which),
            "tokens": len(streams[split]),
            "bytes": int(encoded.bytes[which].sum() + tokenizer.token_bytes[ends].sum()),
        }
        for split, which in documents.items()
    }
    held_out = np.isin(encoded.keys[splits.validation], encoded.keys[splits.train])
    return streams, {
        "part_tokens": _part_tokens(corpus, encoded, documents, len(ends)),
        "split_by": "position" if splits.chosen_by == "position" else "document",
        "held_out": {
            "chosen_by": splits.chosen_by,
            "share": int(corpus.sizes[splits.validation].sum()) / corpus.num_bytes,
            "also_in_train": int(held_out.sum()),
        },
        "splits": counts,
        "tokens": sum(count["tokens"] for count in counts.values()),
        "bytes": sum(count["bytes"] for count in counts.values()),
        "text_bytes": corpus.num_bytes,
        "special_as_text": encoded.special,
        "tokenizer_fidelity": reports(chosen, encoded.changed),
    }


def _encode(
    corpus: Corpus,
    compared: np.ndarray,
    tokenizer: Tokenizer,
    work: Work,
    spread: Spread,
    progress: Progress,
) -> Encoded:
    """Tokenises all documents in tasks; those where `compared` is 1 are decoded and compared."""
    bounds = _bounds(corpus.sizes)
    with spread.tasks() as tasks:
        for shard, (first, last) in enumerate(pairwise(bounds)):
            progress("tokenising shards", shard, len(bounds) - 1)
            places = corpus.places(first, last)
            rows = np.concatenate([places, compared[first:last, None]], axis=1)
            if give_documents(work, shard, rows, tokenizer):
                tasks.submit(work.folder, "encode", shard)
        tasks.join()
    work.wait("encode", len(bounds) - 1)
    return Encoded(work, bounds, token_dtype(tokenizer))


def _bounds(sizes: np.ndarray) -> list[int]:
    """Number of the first document of each shard, and of all documents."""
    least, most = SHARD_BYTES
    ends = np.cumsum(sizes)
    total, taken, bounds = int(ends[-1]), 0, [0]
    while total - taken > least * 1.5:
        end = taken + min(max((total - taken) // 4, least), most)
        bounds.append(int(np.searchsorted(ends, end)) + 1)
        taken = int(ends[bounds[-1] - 1])
    return bounds if bounds[-1] == len(sizes) else [*bounds, len(sizes)]


def _part_tokens(
    corpus: Corpus, encoded: Encoded, documents: dict[str, np.ndarray], ends: int
) -> list[int]:
    """Tokens of each part; what ends a split is of its last document's."""
    counts = np.zeros(len(corpus.parts), np.int64)
    np.add.at(counts, corpus.part_numbers, encoded.tokens)
    for which in documents.values():
        if len(which):
            counts[corpus.part_numbers[which[-1]]] += ends
    return counts.tolist()
