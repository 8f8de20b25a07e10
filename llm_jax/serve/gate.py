"""What a request passes before a route sees it: key, host, size, and whether the server drains.

It is ASGI without a framework, so that nothing is between a route and the client's connection.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Iterable
from typing import Any

from llm_jax.serve.errors import ApiError, new_request
from llm_jax.serve.settings import Settings, is_loopback
from llm_jax.serve.telemetry import Telemetry

OPEN = ("/health",)
"""Paths that need no key."""
BODY_SECONDS = 30.0
"""A body must have arrived by then."""
SEND_SECONDS = 60.0
"""A client that reads nothing for so long is given up: the server could not end otherwise."""
DISCARDED = 16
"""So many times the limit is read of a body that is too large, so that its sender sees why."""
CLOSE = {"Connection": "close"}
"""What is still to come of the request is not read."""
REALM = {"WWW-Authenticate": 'Basic realm="llm-jax"'}
"""A browser then asks for the key, as the password of any user."""


class Gate:
    """Lets requests in to `app`.

    Attributes:
      draining: whether new requests are refused.
      inside: requests that have passed and are not answered yet.
    """

    def __init__(self, app: Any, settings: Settings, telemetry: Telemetry) -> None:
        self._app, self._settings, self._telemetry = app, settings, telemetry
        self.draining = False
        self.inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # The head of what GET answers: routes know GET, and uvicorn, which keeps its own scope,
            # sends no body.
            scope = scope | {"method": "GET"}
        headers = {name.lower(): value for name, value in scope["headers"]}
        send = self._counted(scope, send, new_request())
        try:
            self._check(scope, headers)
            body = await self._body(headers, receive)
            # After the body: nothing is awaited from here to where the request counts as inside.
            if self.draining and scope["path"] not in (*OPEN, "/metrics"):
                raise ApiError(
                    503, "The server is shutting down.", None, "draining", {"Retry-After": "5"}
                )
        except ApiError as error:
            await error.response(scope, receive, send)
            return
        except _Gone:
            return
        self.inside += 1
        try:
            await self._app(scope, _replayed(body, receive), send)
        except Stalled:
            return
        finally:
            self.inside -= 1

    def _counted(self, scope: Any, send: Any, number: str) -> Any:
        """`send`, which counts the answer by the route's path, as clients can make up endless ones,
        says the request's id, and gives up a client that does not read."""

        async def counting(message: Any) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                path = getattr(route, "path", "other")
                self._telemetry.request(path, message["status"])
                headers = [*message.get("headers", ()), (b"x-request-id", number.encode())]
                message = message | {"headers": headers}
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise Stalled from None

        return counting

    def _check(self, scope: Any, headers: dict[bytes, bytes]) -> None:
        settings = self._settings
        if scope["path"] not in OPEN:
            if settings.keys and not _has_key(headers.get(b"authorization", b""), settings.keys):
                raise ApiError(
                    401, "The key is missing or wrong: send Authorization: Bearer KEY.", None,
                    "invalid_api_key", REALM,
                )  # fmt: skip
            # A page of another site whose name was pointed at this machine could read the answers.
            if not settings.keys and settings.is_loopback and not _names_loopback(headers):
                raise ApiError(
                    403, "This server answers to localhost alone: give it --host, or a key."
                )
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        # Other kinds may come from a page of any site without the browser asking first.
        if scope["method"] == "POST" and kind != b"application/json":
            raise ApiError(415, "The body must be JSON: send Content-Type: application/json.")
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise ApiError(415, "The body must not be compressed: leave Content-Encoding out.")

    async def _body(self, headers: dict[bytes, bytes], receive: Any) -> bytes:
        most, parts, size, more = self._settings.most_body, [], 0, True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
                    if size <= most:
                        parts.append(message.get("body", b""))
                    elif size > DISCARDED * most:
                        raise self._too_large(CLOSE)
        except TimeoutError:
            raise ApiError(
                408, f"The body did not arrive in {BODY_SECONDS:g} s.", None, "timeout", CLOSE
            ) from None
        if size > most:
            raise self._too_large({})
        return b"".join(parts)

    def _too_large(self, headers: dict[str, str]) -> ApiError:
        most = self._settings.most_body
        return ApiError(
            413, f"The body has more than {most:,} bytes.", None, "body_too_large", headers
        )


class Stalled(OSError):
    """The client does not read its answer."""


class _Gone(Exception):
    """The client went away before its body was here."""


def _replayed(body: bytes, receive: Any) -> Any:
    """`receive` for a request whose body has been read."""
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _has_key(authorization: bytes, keys: Iterable[str]) -> bool:
    """Whether a header holds a key, in a time that does not depend on how much of it is right."""
    scheme, _, value = authorization.partition(b" ")
    value = value.strip()
    if scheme.lower() == b"basic":
        try:
            value = base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != b"bearer":
        return False
    return bool(sum(hmac.compare_digest(value, key.encode()) for key in keys))


def _names_loopback(headers: dict[bytes, bytes]) -> bool:
    host = headers.get(b"host", b"localhost").decode("latin-1").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return is_loopback(name)
