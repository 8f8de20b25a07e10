"""The models that a server has, by name."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from llm_jax.infer.chat_template import ChatTemplate
from llm_jax.infer.embeddings import Vectors
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.scheduler import on_mesh
from llm_jax.serve.errors import unknown_model

if TYPE_CHECKING:
    from llm_jax.language_model import LanguageModel


@dataclass(frozen=True, eq=False)
class Served:
    """One model.

    Attributes:
      name: what requests call it.
      place: the folder that it is from.
      template: None: it takes no conversations.
      context: tokens that prompt and answer may have together.
      created: seconds since 1970.
    """

    name: str
    place: str
    model: LanguageModel
    engine: Engine
    template: ChatTemplate | None
    context: int
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a text."""
        return self.model.stop_ids or (self.model.tokenizer.eos_id,)

    def next_vectors(self, made: Iterator[Vectors]) -> Vectors | None:
        """The next batch of `embeddings.batches`, on the model's devices; None: there is none."""
        with on_mesh(self.model.mesh):
            return next(made, None)

    def conversation_ids(self, text: str) -> list[int]:
        """Ids of a text that a template made, in which special tokens are spelled out."""
        tokenizer = self.model.tokenizer
        spelled = tokenizer.pieces([tokenizer.eos_id])[0]
        if tokenizer.encode(spelled) == [tokenizer.eos_id] or not tokenizer.special:
            return tokenizer.encode(text)
        # A library that takes special tokens in a text for text.
        found: list[int] = []
        for part in self._special.splitter.split(text):
            if part in self._special.ids:
                found.append(self._special.ids[part])
            elif part:
                found += tokenizer.encode(part)
        return found

    @functools.cached_property
    def _special(self) -> _Special:
        tokenizer = self.model.tokenizer
        pieces, names = tokenizer.pieces(range(tokenizer.vocab_size)), set(tokenizer.special)
        ids = {piece: i for i, piece in enumerate(pieces) if piece in names}
        longest_first = sorted(ids, key=len, reverse=True)
        return _Special(ids, re.compile(f"({'|'.join(map(re.escape, longest_first))})"))


class _Special(NamedTuple):
    """Special tokens: their ids by spelling, and what cuts them out of a text."""

    ids: dict[str, int]
    splitter: re.Pattern[str]


class Models:
    """All of a server, at least one; the first is the default where a request need not name one."""

    def __init__(self, served: Iterable[Served]) -> None:
        self._by_name = {one.name: one for one in served}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_name.values())

    def find(self, name: str | None) -> Served:
        """Raises `ApiError` if there is none of that name."""
        if name is None:
            return next(iter(self))
        if name not in self._by_name:
            raise unknown_model(name, self._by_name)
        return self._by_name[name]
