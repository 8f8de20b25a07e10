"""The texts of one request while the engine makes them.

The engine's thread hands over tokens; everything here runs in the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llm_jax.config import UserError
from llm_jax.infer.completion_text import TextFeed
from llm_jax.infer.constraint import ConstraintError
from llm_jax.infer.engine.request import Request, Ticket, TokenOut
from llm_jax.infer.engine.settings import QueueFull
from llm_jax.serve.errors import ApiError, failure, queue_full
from llm_jax.serve.served import Served
from llm_jax.serve.telemetry import Telemetry


@dataclass(eq=False)
class Answer:
    """One text.

    Attributes:
      text: what may be shown so far.
      tokens: those that the engine made, also one that ended the text.
      finish_reason: None while it is made.
      first, last: when its tokens came, by `time.perf_counter`.
    """

    request: Request
    ticket: Ticket | None = None
    text: str = ""
    tokens: list[TokenOut] = field(default_factory=list)
    finish_reason: str | None = None
    first: float = 0.0
    last: float = 0.0

    @property
    def prompt(self) -> list[TokenOut]:
        """The prompt's tokens with their log-probabilities, if they were asked for."""
        return self.ticket.prompt if self.ticket else []


class Piece(NamedTuple):
    """What is new in the answer of that number: text that may be shown, and its new tokens."""

    answer: int
    text: str
    tokens: list[TokenOut]
    finish_reason: str | None


class Making:
    """Use it in `async with`: what is not finished when the block ends is cancelled.

    Args:
      stop: strings that end a text, which they are not part of.
      seconds: that it may take.
    """

    def __init__(
        self,
        served: Served,
        requests: Sequence[Request],
        *,
        stop: Sequence[str],
        seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self.answers = [Answer(request) for request in requests]
        self._served, self._seconds, self._telemetry = served, seconds, telemetry
        self._feeds = [TextFeed(served.model.tokenizer, stop) for _ in requests]
        self._events: asyncio.Queue[tuple[int, TokenOut | None]] = asyncio.Queue()
        self._began = time.perf_counter()

    async def __aenter__(self) -> Making:
        """Hands the requests to the engine, all or none.

        Raises:
          ApiError: its queue is full, or it cannot take such a request.
        """
        loop = asyncio.get_running_loop()
        for index, answer in enumerate(self.answers):

            def arrived(ticket: Ticket, out: TokenOut | None, index: int = index) -> None:
                loop.call_soon_threadsafe(self._events.put_nowait, (index, out))

            try:
                answer.ticket = self._served.engine.submit(answer.request, arrived)
            except QueueFull:
                self._cancel()
                self._telemetry.refused(self._served.name, "queue_full")
                raise queue_full() from None
            except UserError as error:
                self._cancel()
                if self._served.engine.closed:
                    raise _stopped(error) from None
                raise ApiError(400, str(error)) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cancel()

    async def pieces(self) -> AsyncIterator[Piece]:
        """All that comes, until every answer is finished.

        Raises:
          ApiError: it takes too long.
        """
        open_answers = len(self.answers)
        deadline = self._began + self._seconds
        while open_answers:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.perf_counter())):
                    index, out = await self._events.get()
            except TimeoutError:
                self._telemetry.refused(self._served.name, "timeout")
                raise ApiError(
                    504, f"The answer took more than {self._seconds:g} s.", None, "timeout"
                ) from None
            if self.answers[index].finish_reason is None:
                piece = self._piece(index, out)
                open_answers -= piece.finish_reason is not None
                yield piece

    async def finished(self) -> list[Answer]:
        """All answers when they are finished."""
        async for _ in self.pieces():
            pass
        return self.answers

    def _piece(self, index: int, out: TokenOut | None) -> Piece:
        answer, feed = self.answers[index], self._feeds[index]
        assert answer.ticket is not None
        answer.last = time.perf_counter()
        if out is None:
            text, reason, stopped = feed.end(), answer.ticket.finish_reason, True
            if reason not in ("stop", "length"):
                raise self._failure(answer)
            reason = "stop" if feed.stopped_by is not None else reason
        else:
            if not answer.tokens:
                answer.first = answer.last
                self._telemetry.first_token(self._served.name, answer.last - self._began)
            answer.tokens.append(out)
            ends = out.id in answer.request.stop_ids
            text, stopped = ("", False) if ends else feed.feed(out)
            reason = "stop" if stopped else None
            if stopped:
                self._served.engine.cancel(answer.ticket)
        answer.text += text
        if stopped:
            answer.finish_reason = reason
            self._telemetry.answered(self._served.name, answer)
        return Piece(index, text, [] if out is None else [out], answer.finish_reason)

    def _failure(self, answer: Answer) -> ApiError:
        """Why the engine ended an answer that nobody cancelled."""
        error = answer.ticket.error if answer.ticket else None
        self._telemetry.refused(self._served.name, "failed" if error else "stopped")
        if error is None:
            return _stopped("the engine was closed")
        if self._served.engine.closed:
            return _stopped(error)
        if isinstance(error, ConstraintError):
            return ApiError(400, str(error), "response_format")
        # Logits that are not finite, say, which are the model's.
        return failure(500, "The model has failed", error)

    def _cancel(self) -> None:
        for answer in self.answers:
            if answer.ticket is not None and answer.ticket.finish_reason is None:
                self._served.engine.cancel(answer.ticket)


def _stopped(cause: object) -> ApiError:
    return failure(503, "The engine has stopped", cause, "engine_stopped")
