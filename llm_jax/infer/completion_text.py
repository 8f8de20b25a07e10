"""From an engine's tokens to texts: whole characters, and strings that end a text.

A string may lie across tokens, so what may be its beginning is held back until it is known. What a
text is does not depend on how it was cut into tokens: the string that is complete first ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_jax.config import UserError
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.infer.streamed_text import TextStream

if TYPE_CHECKING:
    from llm_jax.infer.engine.request import TokenOut


class TextFeed:
    """One text, token by token.

    Args:
      stop: strings that end the text, which they are not part of.

    Attributes:
      text: what may be shown so far.
      stopped_by: the string that ended it; None: none has.

    Raises:
      UserError: a string is empty.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        if "" in stop:
            raise UserError("A stop string is empty: give text, or leave it out.")
        self.text = ""
        self.stopped_by: str | None = None
        self._stream, self._stop, self._held = TextStream(tokenizer), tuple(stop), ""

    def feed(self, token: TokenOut) -> tuple[str, bool]:
        """What a token adds.

        Returns:
          The text that may be shown beyond what was shown before, and whether a stop string has
          ended it. What comes later adds nothing.
        """
        if self.stopped_by is not None:
            return "", True
        return self._shown(self._stream.feed([token.id]))

    def end(self) -> str:
        """The text that was held back, when no token comes any more. A character that was cut off
        is U+FFFD."""
        if self.stopped_by is not None:
            return ""
        new, stopped = self._shown(self._stream.end())
        if stopped:
            return new
        rest, self._held = self._held, ""
        self.text += rest
        return new + rest

    def _shown(self, new: str) -> tuple[str, bool]:
        self._held += new
        ends = [(at + len(one), at, one) for one in self._stop if (at := self._held.find(one)) >= 0]
        if ends:
            _, size, self.stopped_by = min(ends)
        else:
            size = len(self._held) - max((_begun(self._held, one) for one in self._stop), default=0)
        shown, self._held = self._held[:size], self._held[size:]
        self.text += shown
        return shown, bool(ends)


def _begun(text: str, stop: str) -> int:
    """Characters at the end of `text` with which `stop` begins, at most all but one of `stop`."""
    most = min(len(stop) - 1, len(text))
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)
