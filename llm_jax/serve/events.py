"""Server-sent events, and clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from llm_jax.serve.errors import ApiError, fault, json_text

T = TypeVar("T")
END = "[DONE]"
LOOK = 0.1
"""Seconds between two looks whether a client is still there."""


class Gone(Exception):
    """The client has closed its connection."""


class EventStream(Response):
    """An answer that is sent as it is made: `data: JSON` for each of `values`, then `[DONE]`.

    The first value is awaited before the status is sent, so that what is refused at once has a
    status of its own. A later error is an event. When the client goes away, `values` is closed.
    """

    def __init__(self, values: AsyncIterator[Any]) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._values = values

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        sending = asyncio.create_task(self._send(scope, receive, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            results = await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._values.aclose()  # type: ignore[attr-defined]
        if isinstance(results[0], Exception) and not isinstance(results[0], OSError):
            raise results[0]

    async def _send(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            first = await anext(self._values)
        except ApiError as error:
            await error.response(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._event(send, first)
        try:
            async for value in self._values:
                await self._event(send, value)
        except ApiError as error:
            await self._event(send, error.body)
        except OSError:  # the client's
            raise
        except Exception as error:
            await self._event(send, fault(error).body)
        await self._text(send, END)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _event(self, send: Any, value: Any) -> None:
        await self._text(send, json_text(value))

    async def _text(self, send: Any, text: str) -> None:
        body = f"data: {text}\n\n".encode("utf-8", "backslashreplace")
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away; then raises `Gone`."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK)
            if not task.done() and await request.is_disconnected():
                raise Gone
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
