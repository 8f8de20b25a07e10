"""A `tokenizer.json` of the tokenizers library: byte-level BPE, BPE, Unigram, WordPiece."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from llm_jax.config import UserError
from llm_jax.config.jsonfile import parse_json
from llm_jax.data.tokenizers.base import Tokenizer, require_unicode, save_companions
from llm_jax.data.tokenizers.files import JSON_FILE, SETTINGS

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
LONG = 1 << 14
"""Characters or ids from which on a text is a batch of one: only of batches does the library let
other threads of a server run meanwhile."""
ROLES = {"begin": ("bos_token", "cls_token"), "end": ("eos_token", "sep_token")}
"""Names of the tokens that begin and end a document. BERT calls them `[CLS]` and `[SEP]`."""


class JsonTokenizer(Tokenizer):
    """A tokenizer that the tokenizers library reads.

    Its truncation and padding, which such a file may carry, are switched off.

    Args:
      content: the content of `tokenizer.json`.
      companions: the files that came with it. `tokenizer_config.json` or `special_tokens_map.json`
        names the special tokens.

    Raises:
      UserError: the file cannot be used, or nothing says which token ends a document.
    """

    def __init__(
        self, content: bytes, companions: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        self.content, self.companions = content, companions
        self._prompts = library_of(content)
        vocabulary = self._prompts.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise UserError(f"{JSON_FILE} has no tokens.")
        self.vocab_size = max(vocabulary.values()) + 1
        self._added = self._prompts.get_added_tokens_decoder()
        self.special = tuple(one.content for one in self._added.values() if one.special)
        roles = _roles(companions)
        end = _id(vocabulary, roles, ROLES["end"])
        if end is None:
            raise UserError(
                f"Nothing says which token of {JSON_FILE} ends a document: name it as eos_token in "
                "tokenizer_config.json, beside it."
            )
        begin = _id(vocabulary, roles, ROLES["begin"])
        pad = _id(vocabulary, roles, ("pad_token",))
        self.eos_id, self.bos_id = end, end if begin is None else begin
        self.pad_id = -1 if pad is None else pad
        marks = f"{self.bos_id} {self.eos_id} {self.pad_id}".encode()
        self.sha256 = hashlib.sha256(content + marks).hexdigest()
        self._piece_bytes = _piece_bytes(self._prompts)

    def encode(self, text: str) -> list[int]:
        require_unicode(text)
        if len(text) > LONG:
            return self._prompts.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return self._prompts.encode(text, add_special_tokens=False).ids

    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        require_unicode(text)
        made = self._prompts.encode(text, add_special_tokens=False)
        return made.ids, made.offsets

    def encode_documents(self, texts: list[str], threads: int | None = None) -> list[np.ndarray]:
        for text in texts:
            require_unicode(text)
        encoded = self._documents.encode_batch_fast(texts, add_special_tokens=False)
        return [self.document(one.ids) for one in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        numbers = self.checked(ids)
        if len(numbers) > LONG:
            return self._prompts.decode_batch([numbers], skip_special_tokens=True)[0]
        return self._prompts.decode(numbers, skip_special_tokens=True)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._prompts.id_to_token(int(i)) or "" for i in ids]

    def bytes_of(self, number: int) -> bytes:
        if added := self._added.get(number):
            return b"" if added.special else added.content.encode()
        piece = self._prompts.id_to_token(number)
        return b"" if piece is None or piece == self._unknown else self._piece_bytes(piece)

    @property
    def is_byte_level_bpe(self) -> bool:
        return self._piece_bytes is _byte_level and hasattr(self._prompts.model, "fuse_unk")

    @property
    def adds_begin(self) -> bool:
        """Whether its library puts `bos_id` before a text."""
        return self._prompts.encode("a").ids[:1] == [self.bos_id]

    def save(self, folder: Path) -> None:
        save_companions(folder, {**self.companions, JSON_FILE: self.content})

    @functools.cached_property
    def _unknown(self) -> str | None:
        return getattr(self._prompts.model, "unk_token", None)

    @functools.cached_property
    def _documents(self) -> Any:
        """The same, for text in which special tokens are text."""
        library = library_of(self.content)
        library.encode_special_tokens = True
        return library


def library_of(content: bytes) -> Any:
    """The library's own tokenizer, without truncation and padding."""
    from tokenizers import Tokenizer as Library

    try:
        made = Library.from_str(content.decode())
    except Exception as error:  # the library raises no narrower one
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{JSON_FILE} is not a tokenizer that can be read ({why}).") from None
    made.no_truncation()
    made.no_padding()
    return made


def _roles(companions: Mapping[str, bytes]) -> dict[str, str]:
    """Name of a special token's role → its spelling, as the settings say."""
    found: dict[str, str] = {}
    for name in SETTINGS:
        if name not in companions:
            continue
        settings = parse_json(companions[name], name)
        for role, token in settings.items() if isinstance(settings, dict) else ():
            spelling = token.get("content") if isinstance(token, dict) else token
            if role.endswith("_token") and isinstance(spelling, str):
                found.setdefault(role, spelling)
    return found


def _id(vocabulary: dict[str, int], roles: dict[str, str], names: tuple[str, ...]) -> int | None:
    """The id of the first of the roles `names` that is filled."""
    for name in names:
        if name in roles:
            if roles[name] not in vocabulary:
                raise UserError(
                    f"The tokenizer's settings name {roles[name]!r} as {name}, which is not in the "
                    f"vocabulary of {JSON_FILE}."
                )
            return vocabulary[roles[name]]
    return None


def _piece_bytes(library: Any) -> Callable[[str], bytes]:
    """From a piece as the vocabulary spells it to the bytes that the decoder makes of it.

    Raises:
      UserError: the decoder is none of those whose pieces stand for bytes of their own.
    """
    state = json.loads(library.decoder.__getstate__()) if library.decoder else {"type": None}
    steps = [one["type"] for one in state.get("decoders", [state])]
    prefix = str(state.get("prefix", "##"))
    if "ByteLevel" in steps:
        return _byte_level
    if "WordPiece" in steps:
        return functools.partial(_word_piece, prefix=prefix)
    if "Metaspace" in steps or {"Replace", "Fuse"} <= set(steps):
        return functools.partial(_spaced, byte_fallback="ByteFallback" in steps)
    raise UserError(
        f"{JSON_FILE} has the decoder {' + '.join(map(str, steps))}: byte-level, WordPiece and "
        "SentencePiece-like (Metaspace, or Replace and Fuse) decoders are supported."
    )


def _alphabet() -> dict[int, str]:
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


BYTE_CHARACTERS = _alphabet()
"""Byte → the printable character that stands for it in GPT-2 (Radford et al. 2019)."""
_BYTES = {character: byte for byte, character in BYTE_CHARACTERS.items()}


def _byte_level(piece: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in piece)
    except KeyError:  # a piece that was added without the alphabet
        return piece.encode()


def _word_piece(piece: str, prefix: str) -> bytes:
    return (piece[len(prefix) :] if piece.startswith(prefix) else f" {piece}").encode()


def _spaced(piece: str, byte_fallback: bool) -> bytes:
    found = BYTE_PIECE.fullmatch(piece) if byte_fallback else None
    return bytes([int(found[1], 16)]) if found else piece.replace("▁", " ").encode()
