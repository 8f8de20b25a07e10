"""Which part of a record is the text, and which parts travel with it.

    text                  a field
    data.body             a field inside of others; a number is a place in a list
    {title}\\n\\n{body}     several fields, with text between them

A field whose own name has dots comes before a path of that spelling.
"""

from __future__ import annotations

import datetime
import string
from collections.abc import Iterable, Mapping
from typing import Any

from llm_jax.config import UserError
from llm_jax.data.sources.left_out import Unusable

OWN = "text"
"""Field that holds the text in records of formats that have no fields of the user's choice."""
ESCAPES = {r"\n": "\n", r"\t": "\t"}


class TextKey:
    """A field, a path or a template.

    Attributes:
      key: as the user wrote it.
      fields: the paths that it reads.

    Raises:
      UserError: `key` is empty, or a template that is not well formed.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.is_template = "{" in key or "}" in key
        self._parts = _parsed(key) if self.is_template else [("", key)]
        self.fields = tuple(path for _, path in self._parts if path is not None)
        if not all(self.fields) or not self.fields:
            raise _bad(key, "it names no field")

    def text(self, record: Any) -> str:
        """The text of `record`; raises `Unusable` if a field is missing or not a text."""
        if not self.is_template:
            return self._field(record, self.key, (str,))
        pieces = []
        for between, path in self._parts:
            pieces.append(between)
            if path is not None:
                pieces.append(str(self._field(record, path, (str, int, float))))
        return "".join(pieces)

    def _field(self, record: Any, path: str, kinds: tuple[type, ...]) -> Any:
        value = lookup(record, path)
        if not isinstance(value, kinds) or isinstance(value, bool):
            detail = f"no {path!r}" if self.is_template else ""
            raise Unusable(f"no text in {self.key!r}", detail)
        return value


def _parsed(key: str) -> list[tuple[str, str | None]]:
    """(text before, path or None) of each part of a template."""
    for written, meant in ESCAPES.items():
        key = key.replace(written, meant)
    try:
        parts = list(string.Formatter().parse(key))
    except ValueError as error:
        raise _bad(key, str(error)) from None
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise _bad(key, "a field has only a name")
    return [(between, path) for between, path, _, _ in parts]


def _bad(key: str, why: str) -> UserError:
    return UserError(
        f"--text-key is {key!r} ({why}): write a field (text), a path (data.body) or a template "
        "({title}\\n\\n{body})."
    )


def lookup(record: Any, path: str) -> Any:
    """The value at `path` in nested dicts and lists, None if there is none."""
    if isinstance(record, Mapping) and path in record:
        return record[path]
    value = record
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and len(part) < 9:
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def metadata_of(record: Any, names: Mapping[str, str]) -> dict[str, str]:
    """The values of `record` that are a text, a number or a date. `names`: name → path."""
    found = {}
    for name, path in names.items():
        value = lookup(record, path)
        if isinstance(value, datetime.date | datetime.time):
            found[name] = value.isoformat()
        elif isinstance(value, str | int | float):
            found[name] = str(value)
    return found


def metadata_names(paths: Iterable[str]) -> dict[str, str]:
    """Name → path: the last part of each path (`url` of `meta.url`).

    Raises:
      UserError: a path is empty, or two have the same name.
    """
    named: dict[str, str] = {}
    for path in paths:
        name = path.rpartition(".")[2]
        if not name:
            raise UserError(f"--metadata is {path!r}: name a field, such as url or meta.url.")
        if named.get(name, path) != path:
            raise UserError(f"--metadata has {named[name]!r} and {path!r}, both {name}: give one.")
        named[name] = path
    return named
