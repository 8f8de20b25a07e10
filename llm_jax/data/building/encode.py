"""The task that tokenises a shard of the corpus, and compares some texts with their tokens."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from llm_jax.data.building.work import Work
from llm_jax.data.same_text import difference, key_number
from llm_jax.data.tasks.program import load_array, save_array
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.files import replacing

BATCH_BYTES = 4 * 2**20
"""Text that is tokenised at a time."""


def token_dtype(tokenizer: Tokenizer) -> np.dtype:
    """uint16, or uint32 for a vocabulary above 65,536."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def give_documents(work: Work, shard: int, documents: np.ndarray, tokenizer: Tokenizer) -> bool:
    """Writes what the task of a shard is to encode; False if just that has been done.

    Args:
      documents: (documents, 4) uint64: file of texts, first byte, size, and whether to compare.
    """
    sha256 = hashlib.sha256(documents.tobytes()).hexdigest()
    task = {"documents": sha256, "tokenizer": tokenizer.sha256}
    if not work.give("encode", shard, task):
        return False
    save_array(work.path("encode", shard, "documents.npy"), documents)
    return True


def encode_shard(work: Work, shard: int, threads: int | None) -> None:
    """Tokenises a shard, unless that is done.

    The result has `special`, the number of documents that spell a special token, which is text in
    them, and `changed`: place of a compared document in the shard → how its tokens differ from it.
    """
    if work.is_done("encode", shard):
        return
    tokenizer = Tokenizer.load(work.tokenizer)
    documents = load_array(work.path("encode", shard, "documents.npy"))
    # `(?!)` matches no text: there may be no special tokens.
    spells = re.compile("|".join(map(re.escape, tokenizer.special)) or "(?!)")
    dtype, sizes = token_dtype(tokenizer), tokenizer.token_bytes
    counts: list[tuple[int, int]] = []
    keys = array("Q")
    changed: dict[int, dict[str, Any]] = {}
    special = 0
    with (
        replacing(work.path("encode", shard, "tokens")) as temporary,
        temporary.open("wb") as file,
    ):
        for texts in _batches(work, documents):
            for text, ids in zip(texts, tokenizer.encode_documents(texts, threads), strict=True):
                if documents[len(counts), 3]:
                    other = difference(text, tokenizer.decode(ids.tolist()))
                    if other is not None:
                        changed[len(counts)] = other
                ids.astype(dtype).tofile(file)
                counts.append((len(ids), int(sizes[ids].sum(dtype=np.int64))))
                keys.append(key_number(text))
                special += spells.search(text) is not None
    save_array(work.path("encode", shard, "counts.npy"), np.array(counts, np.int64).reshape(-1, 2))
    save_array(work.path("encode", shard, "keys.npy"), np.array(keys, np.uint64))
    work.finish("encode", shard, special=special, changed=changed)


def _batches(work: Work, documents: np.ndarray) -> Iterator[list[str]]:
    texts: list[str] = []
    size = 0
    for text in _texts(work, documents):
        texts.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def _texts(work: Work, documents: np.ndarray) -> Iterator[str]:
    file: BinaryIO | None = None
    opened = -1
    try:
        for number, start, size, _ in documents.tolist():
            if number != opened:
                if file is not None:
                    file.close()
                file, opened = work.path("read", number, "texts").open("rb"), number
            assert file is not None
            file.seek(start)
            yield file.read(size).decode()
    finally:
        if file is not None:
            file.close()
