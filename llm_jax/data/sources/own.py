"""A source of your own: a Python function that yields texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

from llm_jax.config import UserError
from llm_jax.config.dataset_info import INTERNAL, Class
from llm_jax.data.sources.document import Document
from llm_jax.data.sources.left_out import LeftOut
from llm_jax.data.sources.markup import Markup, used_text


@dataclass(frozen=True)
class OwnSource:
    """The texts that `make()` yields, each a string or a `Document`.

    `make` is called twice, so it must yield the same texts each time: for the fingerprint, and then
    to read.

    Attributes:
      name: `FILE.py:NAME`, which stands for the source in provenance.
    """

    name: str
    make: Callable[[], Iterable[str | Document]]
    licence: str = "unknown"
    class_: Class = INTERNAL
    markup: Markup = "none"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.name, self.markup)).encode())
        for document in self.documents(LeftOut()):
            fields = (document.source, document.licence, document.class_, document.text)
            for field in (*fields, repr(sorted(document.metadata.items()))):
                digest.update(hashlib.sha256(field.encode("utf-8", "surrogatepass")).digest())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "input": self.name,
            "markup": self.markup,
            "licence": self.licence,
            "class": self.class_,
            "files": [],
        }

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Raises `UserError` where the code yields something else, or fails."""
        for document in self._given():
            get = partial(str, document.text)
            text = used_text(get, self.markup, left_out, document.source, document.line)
            if text is not None:
                yield replace(document, text=text)

    def _given(self) -> Iterator[Document]:
        number, texts = 0, self._texts()
        for number, text in enumerate(texts, 1):
            if isinstance(text, Document):
                self._check_class(text, number)
                yield replace(text, source_name=text.source_name or self.name)
            elif isinstance(text, str):
                name = f"{self.name}#{number}"
                yield Document(text, name, self.licence, source_name=self.name, class_=self.class_)
            else:
                raise UserError(
                    f"--source {self.name} yields {type(text).__name__} number {number}: yield "
                    "strings or Documents."
                )

    def _check_class(self, document: Document, number: int) -> None:
        if document.class_ not in get_args(Class):
            raise UserError(
                f"--source {self.name} yields document number {number} of class_ "
                f"{document.class_!r}: give one of {', '.join(get_args(Class))}."
            )

    def _texts(self) -> Iterator[Any]:
        try:
            yield from self.make()
        except Exception as error:  # whatever the code raises
            raise UserError(
                f"--source {self.name} failed ({type(error).__name__}: {error}): fix its code."
            ) from error
