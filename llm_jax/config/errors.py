"""Errors that a user can fix, and the sentences that explain them."""

from __future__ import annotations

import difflib
import math
import re
import typing
from typing import Any


class UserError(Exception):
    """A user's mistake: one sentence that names the field, the value and the way out."""

    exit_code = 2
    abandons_threads = False
    """Whether it leaves threads that never end, so that the process must exit at once."""


class ConfigError(UserError):
    """A configuration that can never run. Supervisors must not retry it (exit code 78)."""

    exit_code = 78


def require(condition: bool, sentence: str) -> None:
    """Raises `ConfigError(sentence)` unless `condition` holds."""
    if not condition:
        raise ConfigError(sentence)


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, or all of them if none is near.

    A name with these initials (`lr` for `learning_rate`) is nearer than a name with a similar
    spelling.
    """
    known = sorted(known)
    last = word.rsplit(".", 1)[-1].strip("-")
    close = [name for name in known if last and _initials(name) == last]
    close = close or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}."


def _initials(name: str) -> str:
    """Initials of the words in the last part of `name`; empty if it is one word."""
    words = re.split("[-_]", name.rsplit(".", 1)[-1].strip("-"))
    return "".join(word[0] for word in words if word) if len(words) > 1 else ""


def positive(owner: str, obj: Any, *names: str) -> None:
    """Raises `ConfigError` unless the fields `names` of `obj` are finite and above 0."""
    for name in names:
        value = getattr(obj, name)
        require(value > 0, f"{owner}.{name} is {value}: it must be above 0.")
        require(value < math.inf, f"{owner}.{name} is {value}: it must be a finite number.")
