"""Decodes token ids to text as they arrive, in whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from llm_jax.data.tokenizers import Tokenizer


class TextStream:
    """Decodes one row of generated ids piece by piece.

    A character whose bytes come in several tokens appears with its last byte. Bytes that form no
    character become U+FFFD. Control tokens are dropped.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The characters that `ids` complete."""
        return "".join(self._decoder.decode(self._tokenizer.bytes_of(i)) for i in ids)

    def end(self) -> str:
        """What is left: U+FFFD if a character was cut off, otherwise an empty string."""
        return self._decoder.decode(b"", final=True)


def spelled(tokenizer: Tokenizer, number: int) -> str:
    """A token as text. One whose bytes are not whole characters is written `bytes:\\xe7\\x8c`, as
    OpenAI does; a special token as the vocabulary spells it."""
    content = tokenizer.bytes_of(number)
    if not content:
        return tokenizer.pieces([number])[0]
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
