"""A client's connection: how long it may take to ask, and how many there may be.

uvicorn ends a connection on which nothing comes for a while after an answer. A head that comes byte
by byte, a body that is still sent after its answer, and a client that does not read the last of an
answer would stay for ever, and no ASGI application sees them: this is a protocol.
"""

from __future__ import annotations

import asyncio
import http
import math
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llm_jax.serve.errors import ApiError, json_text
from llm_jax.serve.telemetry import Telemetry

IDLE_SECONDS = 5
"""Without a byte after an answer."""
HEAD_SECONDS = 20.0
"""From the start of a connection, or the end of an answer, to the end of the next head."""
FLUSH_SECONDS = 60.0
"""A client that takes nothing of its answer for so long is given up."""


class Connection(H11Protocol):
    """HTTP/1.1 on h11, with limits.

    Args:
      most: connections of the server; one more is answered with 503 and closed.
    """

    def __init__(self, *given: Any, most: int, telemetry: Telemetry, **named: Any) -> None:
        super().__init__(*given, **named)
        self._most, self._telemetry = most, telemetry
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: float = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._limit(HEAD_SECONDS)
        if len(self.connections) > self._most:
            self._refuse(
                ApiError(
                    503, "The server has too many connections: try again in a second.", None,
                    "too_many_connections", {"Retry-After": "1"},
                )
            )  # fmt: skip

    def connection_lost(self, exc: Exception | None) -> None:
        self._unlimited()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._unlimited_if_asked()

    def on_response_complete(self) -> None:
        self._limit(HEAD_SECONDS)
        super().on_response_complete()  # which may find the next request
        self._unlimited_if_asked()

    def send_400_response(self, msg: str) -> None:
        self._refuse(
            ApiError(400, "The request is not HTTP/1.1, or its head has more than 16 KiB.")
        )

    def _limit(self, seconds: float) -> None:
        self._unlimited()
        self._timer = self.loop.call_later(seconds, self._overdue)

    def _unlimited(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unlimited_if_asked(self) -> None:
        """While a request is answered, other limits hold: `gate.py` and `Settings.seconds`."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unlimited()

    def _overdue(self) -> None:
        """Closes, with 408 if a head has begun; what has been closed and is not read, aborts."""
        left = self.transport.get_write_buffer_size()
        if not self.transport.is_closing():
            states = {self.conn.our_state, self.conn.their_state}
            if states == {h11.IDLE} and self.conn.trailing_data[0]:
                self._refuse(
                    ApiError(
                        408, f"The head did not arrive in {HEAD_SECONDS:g} s.", None, "timeout"
                    )
                )
            self.transport.close()
        elif left >= self._unsent:
            self.transport.abort()
            return
        self._unsent = left
        self._limit(FLUSH_SECONDS)

    def _refuse(self, error: ApiError) -> None:
        """Answers what is not a request, and closes."""
        self._telemetry.request("other", error.status)
        content = json_text(error.body).encode()
        headers = {
            "Content-Type": "application/json", "Content-Length": str(len(content)),
            "Connection": "close", **error.headers,
        }  # fmt: skip
        head = h11.Response(
            status_code=error.status,
            headers=list(headers.items()),
            reason=http.HTTPStatus(error.status).phrase.encode(),
        )
        for event in (head, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
