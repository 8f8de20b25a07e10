"""Decodes token ids to text as they arrive, in whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence

from llm_jax.data.tokenizers import Tokenizer
from llm_jax.infer.decoder import Decoder
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.generator import Generation, generate_by


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


def generate_texts(
    engine: Engine,
    decoder: Decoder,
    tokenizer: Tokenizer,
    ids: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seed: int,
    on_text: Callable[[str], object],
) -> tuple[list[str], Generation]:
    """The text after each prompt, and the generation.

    Args:
      ids: of the prompts.
      on_text: called with each new piece of text, of whichever prompt.
    """
    streams = [TextStream(tokenizer) for _ in ids]
    texts = [""] * len(ids)

    def add(row: int, new: str) -> None:
        texts[row] += new
        on_text(new)

    def on_tokens(fresh: list[list[int]]) -> None:
        for row, new in enumerate(fresh):
            add(row, streams[row].feed(new))

    made = generate_by(engine, decoder, ids, max_tokens=max_tokens, seed=seed, on_tokens=on_tokens)
    for row, stream in enumerate(streams):
        add(row, stream.end())
    return texts, made
