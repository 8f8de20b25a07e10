"""Writes the token streams of the splits, and counts what they hold."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm_jax.data.corpus import Corpus, Progress
from llm_jax.data.same_text import key_number
from llm_jax.data.splits import ChosenBy
from llm_jax.data.tokenizers import Tokenizer

BATCH_BYTES = 4 * 2**20
"""Text that is tokenised at a time."""


class Splits(NamedTuple):
    """Numbers of the documents of each split, in a random order, and how they were chosen."""

    train: np.ndarray
    validation: np.ndarray
    chosen_by: ChosenBy


def tokenise(
    corpus: Corpus, tokenizer: Tokenizer, splits: Splits, scratch: Path, progress: Progress
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The token stream of each split, memory-mapped from files in `scratch`, and the counts.

    `part_tokens` has the tokens of each of the corpus's `parts`.
    """
    writer = StreamWriter(corpus, tokenizer, progress)
    documents = {"train": splits.train, "validation": splits.validation}
    streams, keys = {}, {}
    for split, which in documents.items():
        streams[split], keys[split] = writer.write(scratch / split, which)
    sizes = tokenizer.token_bytes
    counts = {
        split: {
            "documents": len(documents[split]),
            "tokens": len(stream),
            "bytes": _text_bytes(stream, sizes),
        }
        for split, stream in streams.items()
    }
    return streams, {
        "part_tokens": writer.part_tokens.tolist(),
        "split_by": "position" if splits.chosen_by == "position" else "document",
        "held_out": {
            "chosen_by": splits.chosen_by,
            "share": int(corpus.sizes[splits.validation].sum()) / corpus.num_bytes,
            "also_in_train": int(np.isin(keys["validation"], keys["train"]).sum()),
        },
        "splits": counts,
        "tokens": sum(count["tokens"] for count in counts.values()),
        "bytes": sum(count["bytes"] for count in counts.values()),
        "text_bytes": corpus.num_bytes,
        "special_as_text": writer.special,
    }


class StreamWriter:
    """Writes `<s> document </s> …` as raw uint16, or uint32 for a vocabulary above 65,536.

    Attributes:
      special: documents that spell a special token, which is text in them.
      part_tokens: (parts of the corpus,) int64, tokens written of each.
    """

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, progress: Progress) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._progress = progress
        self._dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
        self._done = 0
        self.special = 0
        # `(?!)` matches no text: there may be no special tokens.
        self._special = re.compile("|".join(map(re.escape, tokenizer.special)) or "(?!)")
        self.part_tokens = np.zeros(len(corpus.parts), np.int64)

    def write(self, path: Path, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Writes the documents `which`, in that order, to the new file `path`.

        Returns:
          Their tokens as a memory map, and the `key_number` of each document, uint64.
        """
        keys, parts = array("Q"), iter(self._corpus.part_numbers[which].tolist())
        with path.open("wb") as file:
            for texts in self._batches(which):
                keys.extend(key_number(text) for text in texts)
                for ids in self._tokenizer.encode_documents(texts):
                    ids.astype(self._dtype).tofile(file)
                    self.part_tokens[next(parts)] += len(ids)
                self.special += sum(map(self._spells_special, texts))
                self._done += sum(len(text.encode()) for text in texts)
                self._progress("tokenising bytes", self._done, self._corpus.num_bytes)
            if self._tokenizer.marks.shared:
                np.array([self._tokenizer.eos_id], self._dtype).tofile(file)
                if len(which):  # it ends the last document
                    self.part_tokens[self._corpus.part_numbers[which[-1]]] += 1
        return np.memmap(path, self._dtype, mode="r"), np.array(keys, np.uint64)

    def _spells_special(self, text: str) -> bool:
        return self._special.search(text) is not None

    def _batches(self, which: np.ndarray) -> Iterator[list[str]]:
        texts: list[str] = []
        size = 0
        for i in which:
            texts.append(self._corpus.text(i))
            size += len(texts[-1])
            if size >= BATCH_BYTES:
                yield texts
                texts, size = [], 0
        if texts:
            yield texts


def _text_bytes(stream: np.ndarray, sizes: np.ndarray) -> int:
    """UTF-8 bytes that the tokens of `stream` stand for."""
    step = 2**22
    parts = (stream[start : start + step] for start in range(0, len(stream), step))
    return sum(int(sizes[part].sum(dtype=np.int64)) for part in parts)
