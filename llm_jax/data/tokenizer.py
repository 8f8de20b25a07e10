"""The tokenizer: lossless SentencePiece BPE with byte fallback, and the ids of Hugging Face's.

Byte-pair encoding: Sennrich et al. 2016; byte fallback and identity normalisation follow Llama
(Touvron et al. 2023). So decoding gives back every byte that was encoded, with one exception:
SentencePiece writes a space as U+2581 (▁), so this character is decoded as a space. Unicode
normalisation is part of cleaning (`clean.py`), because an export would lose it here.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from llm_jax.config import UserError, read_bytes

RECIPE: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": 3,
}
BPE = 2
"""`model_type` of SentencePiece's byte-pair encoding."""
BYTES_AND_CONTROL = 260
"""Pieces in every vocabulary: 256 bytes and 4 control tokens."""
# Japanese paragraphs are lines of thousands of characters without a space, and SentencePiece skips
# sentences above 4,192 bytes. A cut breaks at most one piece in about 300.
SENTENCE_CHARS = 1000
# Encoding takes n·log(n) time, and memory, for a text of length n: long documents go in parts.
PART_CHARS = 16_384


class Tokenizer:
    """A trained SentencePiece model.

    Args:
      model: the serialised model, the content of `tokenizer.model`.

    Attributes:
      model: the serialised model.
      sha256: hex digest of `model`; its identity in datasets and checkpoints.
      vocab_size: number of pieces, V.
      bos_id: id of `<s>`, which begins a document.
      eos_id: id of `</s>`, which ends a document.
      pad_id: id of the padding; -1 if the model has none.

    Raises:
      UserError: `model` is not a SentencePiece model, or lacks `<s>` or `</s>`.
    """

    def __init__(self, model: bytes) -> None:
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, UnicodeDecodeError) as error:  # of its message, which quotes the file
            raise UserError(f"The tokenizer is not a SentencePiece model ({error}).") from None
        self.model = model
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.vocab_size: int = processor.vocab_size()
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()
        self.pad_id: int = processor.pad_id()
        if min(self.bos_id, self.eos_id) < 0:
            raise UserError("The tokenizer has no <s> or no </s>, which mark documents: add them.")
        self._processor = processor

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """The tokenizer in a file.

        Args:
          path: a SentencePiece model, such as the `tokenizer.model` of a dataset or a run.

        Raises:
          UserError: there is no such file, or it is not a SentencePiece model.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"There is no tokenizer file {str(path)!r}: check the path.")
        return cls(read_bytes(path))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without `<s>` and `</s>`.

        Raises:
          UserError: it holds half a character (a lone surrogate), which UTF-8 cannot say.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"The text holds {text[error.start]!a} at character {error.start:,}, which is not "
                "Unicode: remove it, or read the text with the right encoding."
            ) from None
        return self._processor.encode(text, out_type=int)

    def encode_documents(self, texts: list[str], threads: int | None = None) -> list[np.ndarray]:
        """int32 ids of `<s> text </s>` for each text, as `encode` gives them however long it is.

        Args:
          texts: the documents.
          threads: threads that encode; None: one for each core.
        """
        parts, counts = [], []
        for text in texts:
            pieces = _parts(text) if self._may_be_cut else [text]
            parts += pieces
            counts.append(len(pieces))
        ids = self._processor.EncodeAsNumpy(parts, num_threads=threads or os.cpu_count())
        documents, start = [], 0
        for count in counts:
            inner = ids[start : start + count]
            documents.append(np.concatenate([[self.bos_id], *inner, [self.eos_id]], dtype=np.int32))
            start += count
        return documents

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control tokens are dropped, incomplete UTF-8 becomes U+FFFD.

        Raises:
          UserError: an id is outside the vocabulary.
        """
        ids = [int(i) for i in ids]
        for i in (min(ids, default=0), max(ids, default=0)):
            if not 0 <= i < self.vocab_size:
                raise UserError(f"Token id {i} is outside the vocabulary of {self.vocab_size}.")
        return self._processor.decode(ids)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary's own spelling of each id: `▁` for the space, `<0x0A>` for a byte."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    @functools.cached_property
    def token_bytes(self) -> np.ndarray:
        """(V,) int32: UTF-8 bytes of text that each token stands for; control tokens 0."""
        processor = self._processor
        sizes = np.zeros(self.vocab_size, np.int32)
        for i in range(self.vocab_size):
            if processor.is_byte(i):
                sizes[i] = 1
            elif not (processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i)):
                sizes[i] = len(processor.id_to_piece(i).replace("▁", " ").encode())
        return sizes

    @functools.cached_property
    def proto(self) -> Any:
        """The model as SentencePiece's `ModelProto`: its pieces and settings."""
        proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
        proto.ParseFromString(self.model)
        return proto

    @functools.cached_property
    def _may_be_cut(self) -> bool:
        """Whether a text has the same ids when it is cut after newlines and encoded in parts.

        Five things prevent it. A dummy prefix would begin every part. A normaliser may look across
        the cut, or remove the newline. Unknown characters in a row become one token, unless they
        become bytes. A Unigram's best path is a sum of rounded numbers from the text's beginning.
        Merges of a BPE cross the cut if a piece has a newline before its end.
        """
        spec, normalizer = self.proto.trainer_spec, self.proto.normalizer_spec
        as_written = not (
            normalizer.add_dummy_prefix
            or normalizer.remove_extra_whitespaces
            or normalizer.precompiled_charsmap
        )
        merges = spec.model_type == BPE and spec.byte_fallback
        return (
            as_written and merges and not any("\n" in one.piece[:-1] for one in self.proto.pieces)
        )


def _parts(text: str) -> list[str]:
    """`text` cut after newlines into parts of about PART_CHARS; the cuts change no token."""
    parts, start = [], 0
    while len(text) - start > PART_CHARS:
        cut = text.find("\n", start + PART_CHARS) + 1
        if cut == 0:
            break
        parts.append(text[start:cut])
        start = cut
    parts.append(text[start:])
    return parts


COVERAGE = 0.9995
"""Share of a text's characters that get a piece if there is room (SentencePiece's default)."""
LEAST_COVERAGE = 0.98
"""Least coverage that SentencePiece accepts."""


def coverage_within(texts: Iterable[str], vocab_size: int) -> float:
    """`COVERAGE`, or less if its characters would take over half of the pieces that are not bytes.

    Japanese has thousands of characters, which would leave no room for words in a small vocabulary.
    """
    counts = np.zeros(sys.maxunicode + 1, np.int64)
    for text in texts:
        found = np.bincount(np.frombuffer(text.replace("\n", "").encode("utf-32-le"), np.uint32))
        counts[: len(found)] += found
    most_frequent = np.sort(counts)[::-1][: max(vocab_size - BYTES_AND_CONTROL, 0) // 2]
    covered = float(most_frequent.sum() / max(counts.sum(), 1))
    return min(max(covered, LEAST_COVERAGE), COVERAGE)


def train(texts: Iterable[str], vocab_size: int, character_coverage: float = COVERAGE) -> Tokenizer:
    """Trains `RECIPE` on `texts`, which are streamed; SentencePiece keeps their distinct words.

    The same texts and settings give the same bytes.

    Args:
      vocab_size: number of pieces, including 4 control tokens and 256 bytes.
      character_coverage: share of the text's characters that get a piece; others become bytes.

    Raises:
      UserError: there is no text, the vocabulary is too small or too large for it, or the coverage
        is out of range.
    """
    if vocab_size <= BYTES_AND_CONTROL:
        raise UserError(
            f"--vocab-size is {vocab_size}: bytes and control tokens alone take "
            f"{BYTES_AND_CONTROL}; give more."
        )
    if not LEAST_COVERAGE <= character_coverage <= 1:
        raise UserError(
            f"--character-coverage is {character_coverage}: give a number from {LEAST_COVERAGE} "
            "to 1."
        )
    sentences = _sentences(texts)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            minloglevel=2,
            **RECIPE,
        )
    except RuntimeError as error:
        raise _training_error(error, vocab_size, character_coverage) from None
    return Tokenizer(model.getvalue())


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Non-empty lines, long ones in parts."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), SENTENCE_CHARS):
                yield line[start : start + SENTENCE_CHARS]


def _training_error(error: RuntimeError, vocab_size: int, coverage: float) -> Exception:
    """SentencePiece's refusal as a sentence; any other error as it is."""
    message = str(error)
    if found := re.search(r"Vocabulary size too high .* value <= (\d+)", message):
        return UserError(
            f"--vocab-size is {vocab_size}, but this corpus yields only {found[1]} pieces: "
            f"lower it to {found[1]} or less, or give more text."
        )
    if found := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        lower = ", or lower --character-coverage so that rare ones become bytes"
        return UserError(
            f"--vocab-size is {vocab_size}, but the characters of this corpus need {found[1]}: "
            f"raise it{lower if coverage > LEAST_COVERAGE else ''}."
        )
    if "!sentences_.empty()" in message:
        return UserError("There is no text to train a tokenizer on: the corpus is empty.")
    return error
