"""Calls of tools in a model's text: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

This is the form of Hermes and Qwen. Other forms stay in the message as text. Models write calls on
lines of their own: white space beside a call does not belong to the message, except that between
two texts the one before the first call stays, or the one after the last if there is none.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

BEGIN, END = "<tool_call>", "</tool_call>"
STRING_OR_END = re.compile(rf'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|{END}', re.DOTALL)
"""A string of JSON, in which the end of a call is not one."""
SPACE = " \t\r\n"


class ToolCalls:
    """Takes calls out of a text that arrives in pieces. However it is cut, all that `feed` and
    `end` return is together the same.

    Attributes:
      found: the calls so far, in OpenAI's form.
    """

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._held = ""
        self._shown = False
        self._before = ""
        self._after: str | None = None
        """White space behind the last text and, if a call came since, behind that."""

    def feed(self, text: str) -> str:
        """What certainly belongs to the message."""
        self._held += text
        shown = ""
        while True:
            before, begin, rest = self._held.partition(BEGIN)
            if not begin:
                keep = _overlap(self._held)
                shown += self._text(self._held[: len(self._held) - keep])
                self._held = self._held[len(self._held) - keep :]
                return shown
            shown += self._text(before)
            end = _end_of(rest)
            if end is None:
                self._held = begin + rest
                return shown
            inside, self._held = rest[:end], rest[end + len(END) :]
            if not self._call(inside):  # so it is text
                shown += self._text(begin + inside + END)

    def end(self) -> str:
        """What is left. A last call may lack its end, where that is a token that ends the text."""
        held, self._held = self._held, ""
        if held.startswith(BEGIN) and self._call(held.removeprefix(BEGIN)):
            return ""
        return self._text(held) + (self._before if self._after is None else "")

    def _call(self, inside: str) -> bool:
        """Whether it is a call, which is taken then."""
        call = parsed(inside)
        if call is None:
            return False
        self.found.append(call)
        self._before = (self._before or self._after or "") if self._shown else ""
        self._after = ""
        return True

    def _text(self, text: str) -> str:
        """What of a text outside of calls may be shown: its white space waits for what follows."""
        rest = text.lstrip(SPACE)
        space = text[: len(text) - len(rest)]
        if self._after is None:
            self._before += space
        else:
            self._after += space
        if not rest:
            return ""
        content = rest.rstrip(SPACE)
        between = self._before
        if self._after is not None:
            between = (self._before or self._after) if self._shown else ""
        self._before, self._after, self._shown = rest[len(content) :], None, True
        return between + content


def _end_of(text: str) -> int | None:
    """Where the first END is that is not in a string; None: it is still to come."""
    if END not in text:
        return None
    places = (one.start() for one in STRING_OR_END.finditer(text) if one.group() == END)
    return next(places, None)


def parsed(text: str) -> dict[str, Any] | None:
    """A call in OpenAI's form; None if `text` is not one."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        return None
    arguments = raw.get("arguments", raw.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": raw["name"], "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _overlap(text: str) -> int:
    """Characters at the end of `text` that may begin a call."""
    return next((n for n in range(len(BEGIN) - 1, 0, -1) if text.endswith(BEGIN[:n])), 0)
