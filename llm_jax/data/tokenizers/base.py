"""What every tokenizer can do, whichever library reads its file."""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llm_jax.config import UserError
from llm_jax.runs.files import write_bytes

COMPANIONS = "tokenizer"
"""Subfolder of a dataset or run for the files that came with a tokenizer."""


class Marks(NamedTuple):
    """Ids that begin and end a document in a stream of tokens.

    Where both are the same id, as GPT-2's `<|endoftext|>`, one token ends a document and begins the
    next: `| text | text`. Otherwise a document is `<s> text </s>`.
    """

    begin: int
    end: int

    @property
    def shared(self) -> bool:
        return self.begin == self.end


class Tokenizer(abc.ABC):
    """Text to ids and back.

    Special tokens follow one rule. In a document (`encode_documents`) they are text like any
    other, so that no text can end a document. In a prompt (`encode`) they are what the tokenizer's
    own library takes them for, here and after export.

    Attributes:
      content: the bytes of the tokenizer's file.
      companions: file name → bytes of the files that came with it, which an export copies.
      sha256: hex digest; its identity in datasets and checkpoints.
      vocab_size: V, one more than the largest id.
      bos_id: id that begins a document.
      eos_id: id that ends a document; `bos_id` for a tokenizer with one token for both.
      pad_id: id of the padding; -1 if there is none.
      special: special tokens as they are spelled.
    """

    content: bytes
    companions: Mapping[str, bytes]
    sha256: str
    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    special: tuple[str, ...]

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """The tokenizer in a file or a folder, of whichever kind it is.

        Args:
          path: a SentencePiece model, a `tokenizer.json`, or a folder with either, such as a
            dataset, a run or a Hugging Face folder.

        Raises:
          UserError: there is none, or it cannot be used.
        """
        from llm_jax.data.tokenizers.files import load_tokenizer

        return load_tokenizer(path)

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text` as a prompt, without the ids that begin and end a document.

        Raises:
          UserError: it holds half a character (a lone surrogate), which UTF-8 cannot say.
        """

    @abc.abstractmethod
    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of `text` as `encode` gives them, and begin and end of the characters that each of
        them stands for.

        Raises:
          UserError: as `encode` does.
        """

    @abc.abstractmethod
    def encode_documents(self, texts: list[str], threads: int | None = None) -> list[np.ndarray]:
        """int32 ids of each text as a document with its `marks`, however long it is.

        Args:
          texts: the documents.
          threads: threads that encode, where the library lets one choose; None: one for each core.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens are dropped, incomplete UTF-8 becomes U+FFFD.

        Raises:
          UserError: an id is outside the vocabulary.
        """

    @abc.abstractmethod
    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary's own spelling of each id."""

    @abc.abstractmethod
    def bytes_of(self, number: int) -> bytes:
        """The UTF-8 bytes of text that a token stands for; none for a special token."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Writes its files into a dataset or run, where `load` finds them."""

    @property
    def marks(self) -> Marks:
        return Marks(self.bos_id, self.eos_id)

    @functools.cached_property
    def token_bytes(self) -> np.ndarray:
        """(V,) int32: UTF-8 bytes of text that each token stands for; special tokens 0."""
        return np.array([len(self.bytes_of(i)) for i in range(self.vocab_size)], np.int32)

    def bytes_per_token(self, texts: list[str]) -> float:
        """UTF-8 bytes of `texts` for each of their tokens."""
        return sum(len(t.encode()) for t in texts) / sum(len(self.encode(t)) for t in texts)

    def document(self, ids: Iterable[int]) -> np.ndarray:
        """int32 ids of a document whose text has `ids`."""
        end = [] if self.marks.shared else [self.eos_id]
        return np.concatenate([[self.bos_id], np.asarray(ids, np.int32), end]).astype(np.int32)

    def stream(self, texts: list[str]) -> np.ndarray:
        """(n,) int32: the documents one after another, with the end of the last."""
        end = [self.eos_id] if self.marks.shared else []
        return np.concatenate([*self.encode_documents(texts), np.array(end, np.int32)])

    def checked(self, ids: Iterable[int]) -> list[int]:
        """`ids` as whole numbers; raises `UserError` if one is outside the vocabulary."""
        numbers = [int(i) for i in ids]
        for i in (min(numbers, default=0), max(numbers, default=0)):
            if not 0 <= i < self.vocab_size:
                raise UserError(f"Token id {i} is outside the vocabulary of {self.vocab_size}.")
        return numbers


def require_unicode(text: str) -> None:
    """Raises `UserError` if `text` holds a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text holds {text[error.start]!a} at character {error.start:,}, which is not "
            "Unicode: remove it, or read the text with the right encoding."
        ) from None


def save_companions(folder: Path, companions: Mapping[str, bytes]) -> None:
    for name, content in companions.items():
        write_bytes(folder / COMPANIONS / name, content)
