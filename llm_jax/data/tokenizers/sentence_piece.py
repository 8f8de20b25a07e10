"""A SentencePiece model (Kudo and Richardson 2018) as a tokenizer.

SentencePiece writes a space as U+2581 (▁), so this character is decoded as a space.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2, sentencepiece_pb2

from llm_jax.config import UserError
from llm_jax.data.tokenizers.base import Tokenizer, require_unicode, save_companions
from llm_jax.runs.files import write_bytes

MODEL_FILE = "tokenizer.model"
UNIGRAM, BPE = 1, 2
"""`model_type` in the model's settings."""
UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6
"""Types of pieces."""
# Encoding takes n·log(n) time, and memory, for a text of length n: long documents go in parts.
PART_CHARS = 16_384


class SentencePieceTokenizer(Tokenizer):
    """A trained SentencePiece model.

    Args:
      content: the serialised model, the content of `tokenizer.model`.
      companions: the files that came with it.

    Raises:
      UserError: `content` is not a SentencePiece model, or has no `</s>`.
    """

    def __init__(
        self, content: bytes, companions: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        except (RuntimeError, UnicodeDecodeError) as error:  # of its message, which quotes the file
            raise UserError(f"The tokenizer is not a SentencePiece model ({error}).") from None
        self.content, self.companions = content, companions
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.vocab_size = processor.vocab_size()
        self.eos_id = processor.eos_id()
        self.pad_id = processor.pad_id()
        if self.eos_id < 0:
            raise UserError("The tokenizer has no </s>, which ends documents: add it.")
        self.bos_id = processor.bos_id() if processor.bos_id() >= 0 else self.eos_id
        self._processor = processor

    def encode(self, text: str) -> list[int]:
        require_unicode(text)
        return self._processor.encode(text, out_type=int)

    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        require_unicode(text)
        made = sentencepiece_pb2.SentencePieceText()  # type: ignore[attr-defined]
        made.ParseFromString(self._processor.encode(text, out_type="serialized_proto"))
        raw = np.frombuffer(text.encode(), np.uint8)
        begins = np.cumsum((raw & 0xC0) != 0x80)  # characters that have begun, by byte
        before = [0, *begins.tolist()]
        spans, end = list[tuple[int, int]](), len(text)
        for one in reversed(made.pieces):  # of a character's bytes, only the last has its place
            begin = before[one.begin]
            end = before[one.end] if one.end > one.begin else end
            spans.append((begin, end))
        return [one.id for one in made.pieces], spans[::-1]

    def encode_documents(self, texts: list[str], threads: int | None = None) -> list[np.ndarray]:
        parts, counts = [], []
        for text in texts:
            pieces = _parts(text) if self._may_be_cut else [text]
            parts += pieces
            counts.append(len(pieces))
        ids = self._processor.EncodeAsNumpy(parts, num_threads=threads or os.cpu_count())
        documents, start = [], 0
        for count in counts:
            documents.append(self.document(np.concatenate(ids[start : start + count])))
            start += count
        return documents

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode(self.checked(ids))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def bytes_of(self, number: int) -> bytes:
        kind, piece = self._kinds[number], self._processor.id_to_piece(number)
        if kind == BYTE:
            return bytes([int(piece[3:-1], 16)])
        return b"" if kind in (UNKNOWN, CONTROL, UNUSED) else piece.replace("▁", " ").encode()

    def first_cut(self, text: str) -> int:
        """Characters before the first boundary of pieces inside of `text`, which is ASCII without
        spaces; 0 if there is none."""
        ids = self.encode(text)
        spelled = self._processor.encode(text, out_type=str)  # an unknown piece is its text
        sizes = [1 if self._kinds[i] == BYTE else len(p) for i, p in zip(ids, spelled, strict=True)]
        sizes[0] -= spelled[0].startswith("▁")
        ends = np.cumsum(sizes)
        return next((int(end) for end in ends if 0 < end < len(text)), 0)

    def save(self, folder: Path) -> None:
        save_companions(folder, self.companions)
        write_bytes(folder / MODEL_FILE, self.content)

    @functools.cached_property
    def special(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(one.piece for one in self.proto.pieces if one.type == CONTROL)

    @functools.cached_property
    def proto(self) -> Any:
        """The model as SentencePiece's `ModelProto`: its pieces and settings."""
        proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
        proto.ParseFromString(self.content)
        return proto

    @functools.cached_property
    def _kinds(self) -> list[int]:
        return [one.type for one in self.proto.pieces]

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
