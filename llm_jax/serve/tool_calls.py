"""Calls of tools in a model's text: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

This is the form of Hermes and Qwen. Other forms stay in the message as text.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

BEGIN, END = "<tool_call>", "</tool_call>"


class ToolCalls:
    """Takes calls out of a text that arrives in pieces.

    Attributes:
      found: the calls so far, in OpenAI's form.
    """

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._held = ""

    def feed(self, text: str) -> str:
        """What is certainly not a part of a call."""
        self._held += text
        shown = ""
        while True:
            before, begin, rest = self._held.partition(BEGIN)
            if not begin:
                keep = _overlap(self._held)
                shown += self._held[: len(self._held) - keep]
                self._held = self._held[len(self._held) - keep :]
                return shown
            inside, end, after = rest.partition(END)
            if not end:
                self._held = begin + rest
                return shown + before
            call = parsed(inside)
            shown += before
            if call is None:  # not a call, so it is text
                shown += begin + inside + end
            else:
                self.found.append(call)
            self._held = after

    def end(self) -> str:
        """What is left. A last call may lack its end, where that is a token that ends the text."""
        held, self._held = self._held, ""
        call = parsed(held.removeprefix(BEGIN)) if held.startswith(BEGIN) else None
        if call is None:
            return held
        self.found.append(call)
        return ""


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
