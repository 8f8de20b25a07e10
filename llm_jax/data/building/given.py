"""Texts that the joining process has read of a source, for a task to clean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_jax.data.building.events import Events, Replay
from llm_jax.data.sources import Document, LeftOut
from llm_jax.runs.files import replacing

Row = list[Any]
"""Size of a text in bytes, and the other fields of its `Document` but for the source's name."""


class Given:
    """Documents of one source that are gathered for a task.

    Attributes:
      events: what the source leaves out between them.
      size: bytes of their texts.
    """

    def __init__(self) -> None:
        self.events = Events()
        self.clear()

    def clear(self) -> None:
        """Forgets all documents and events."""
        self.events.clear()
        self.size = 0
        self._texts: list[bytes] = []
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, document: Document) -> None:
        raw = document.text.encode("utf-8", "surrogatepass")
        self._texts.append(raw)
        more = [document.licence, document.class_, dict(document.metadata)]
        self._rows.append([len(raw), document.source, document.line, *more])
        self.size += len(raw)
        self.events.place = len(self._rows)

    def sha256(self) -> str:
        """Hex digest of all documents and events."""
        digest = hashlib.sha256(self._about())
        for text in self._texts:
            digest.update(text)
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Writes a line of JSON, and the texts one after another."""
        with replacing(path, durable=False) as temporary, temporary.open("wb") as file:
            file.write(self._about())
            file.writelines(self._texts)

    def _about(self) -> bytes:
        about = {"rows": self._rows, "events": self.events.to_dict()}
        return json.dumps(about).encode() + b"\n"


def given_documents(path: Path, left_out: LeftOut) -> Iterator[Document]:
    """The documents that `Given.save` wrote; what was left out between them is recorded again."""
    with path.open("rb") as file:
        about = json.loads(file.readline())
        replay = Replay(about["events"], left_out)
        for number, (size, source, line, licence, class_, more) in enumerate(about["rows"]):
            replay.up_to(number)
            text = file.read(size).decode("utf-8", "surrogatepass")
            yield Document(text, source, licence, line, more, class_=class_)
        replay.rest()
