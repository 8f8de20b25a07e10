"""From an engine's tokens to texts: whole characters, and strings that end a text.

A string may lie across tokens, so what may be its beginning is held back until it is known. What a
text is does not depend on how it was cut into tokens: the string that is complete first ends it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from llm_jax.config import UserError
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.request import Finish, Request, Ticket, TokenOut
from llm_jax.infer.generator import row_seed
from llm_jax.infer.streamed_text import TextStream


@dataclasses.dataclass(frozen=True)
class TextCompletion:
    """One answer of `complete`.

    Attributes:
      tokens: of the text, with those of the stop string that ended it.
      finish_reason: `stop` also for a stop string.
      stopped_by: the stop string that ended the text; None: none did.
    """

    text: str
    tokens: tuple[TokenOut, ...]
    finish_reason: Finish
    stopped_by: str | None


def complete(
    engine: Engine,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    stops: Sequence[Sequence[str]] = (),
    n: int = 1,
    *,
    on_text: Callable[[str], object] | None = None,
    after_step: Callable[[], object] | None = None,
) -> list[list[TextCompletion]]:
    """The texts that follow prompts: `n` answers to each request, with seeds of their own, of which
    the first is the request's.

    Args:
      engine: running or not.
      stops: for each request the strings that end its texts; empty: none does.
      on_text: called with each new piece of text, of whichever answer. With an engine that runs, it
        is called at the end.
      after_step: as of `Engine.run`.

    Raises:
      UserError: a request can never fit, or no token could be chosen for one.
    """
    stops = stops or [()] * len(requests)
    asked, feeds = [], []
    for request, stop in zip(requests, stops, strict=True):
        for answer in range(n):
            asked.append(dataclasses.replace(request, seed=row_seed(request.seed, answer)))
            feeds.append(_Listener(engine, TextFeed(tokenizer, stop)))

    def show() -> None:
        for one in feeds:
            if (new := one.new_text()) and on_text:
                on_text(new)

    def between_steps() -> None:
        show()
        if after_step:
            after_step()

    tickets = engine.run(asked, feeds, between_steps)
    show()  # what was held back
    made = [one.completion(ticket) for one, ticket in zip(feeds, tickets, strict=True)]
    return [made[first : first + n] for first in range(0, len(made), n)]


class _Listener:
    """Feeds one answer, and cancels the rest of it at a stop string."""

    def __init__(self, engine: Engine, feed: TextFeed) -> None:
        self._engine, self._feed = engine, feed
        self._tokens: list[TokenOut] = []
        self._shown = 0

    def new_text(self) -> str:
        """What may be shown since the last call."""
        before, self._shown = self._shown, len(self._feed.text)
        return self._feed.text[before:]

    def __call__(self, ticket: Ticket, token: TokenOut | None) -> None:
        if self._feed.stopped_by is not None:
            return
        if token is None:
            self._feed.end()
            return
        self._tokens.append(token)
        if self._feed.feed(token)[1]:
            self._engine.cancel(ticket)

    def completion(self, ticket: Ticket) -> TextCompletion:
        stopped_by, reason = self._feed.stopped_by, ticket.finish_reason
        assert reason is not None
        return TextCompletion(
            self._feed.text,
            tuple(self._tokens),
            reason if stopped_by is None else "stop",
            stopped_by,
        )


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
