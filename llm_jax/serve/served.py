"""The models that a server has, by name."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_jax.infer.chat_template import ChatTemplate, ConversationIds
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

    @functools.cached_property
    def conversation_ids(self) -> ConversationIds:
        """From a text that a template made to its ids."""
        return ConversationIds(self.model.tokenizer)


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
