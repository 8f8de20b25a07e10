"""The models that a server has, by name."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llm_jax.infer.embeddings import of_ids
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.scheduler import on_mesh
from llm_jax.serve.chat_template import ChatTemplate
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

    def vector(self, ids: Sequence[int]) -> np.ndarray:
        """As `embeddings.of_ids`, on the model's devices."""
        with on_mesh(self.model.mesh):
            return of_ids(self.model, ids)

    def conversation_ids(self, text: str) -> list[int]:
        """Ids of a text that a template made, in which special tokens are spelled out."""
        tokenizer = self.model.tokenizer
        spelled = tokenizer.pieces([tokenizer.eos_id])[0]
        if tokenizer.encode(spelled) == [tokenizer.eos_id] or not tokenizer.special:
            return tokenizer.encode(text)
        return _with_special(self, text)


def _with_special(served: Served, text: str) -> list[int]:
    """As `Tokenizer.encode`, of a library that takes special tokens in a text for text."""
    tokenizer = served.model.tokenizer
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    known = {piece: i for i, piece in enumerate(pieces) if piece in set(tokenizer.special)}
    found: list[int] = []
    while text:
        places = [(text.find(piece), -len(piece), piece) for piece in known if piece in text]
        if not places:
            return found + tokenizer.encode(text)
        place, _, piece = min(places)
        found += [*(tokenizer.encode(text[:place]) if place else []), known[piece]]
        text = text[place + len(piece) :]
    return found


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
