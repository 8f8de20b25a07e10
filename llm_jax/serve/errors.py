"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
import secrets
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from llm_jax.config import UserError, nearest
from llm_jax.serve.schema import FIELDS

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
}
"""Status → `type`; every other one is an `invalid_request_error`."""
PIECE = 16
"""Elements of a list that are written at once."""
MOST_SHOWN = 200
"""Characters of a client's word that an error quotes."""
REQUEST: ContextVar[str] = ContextVar("REQUEST", default="")
"""Id of the request that is answered, as the header `X-Request-Id` says it."""


class ApiError(Exception):
    """An answer that is an error.

    Args:
      param: the field of the request that is wrong.
      code: a word for programs, such as `context_length_exceeded`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def response(self) -> Response:
        return json_response(self.body, self.status, self.headers)


def json_text(value: Any) -> str:
    """JSON in one line, as OpenAI's clients read it. Raises ValueError for numbers that are not
    finite, which JSON cannot say."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    # Half a character of a client's text is escaped, as UTF-8 cannot say it.
    content = _in_pieces(value).encode("utf-8", "backslashreplace")
    return Response(content, status, dict(headers or {}), "application/json")


def _in_pieces(value: Any) -> str:
    """`json_text` of an answer, whose lists are written a few elements at a time: in a thread, the
    interpreter's lock is free in between."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{json_text(k)}:{_in_pieces(one)}' for k, one in value.items())}}}"
    if isinstance(value, list):
        pieces = (value[i : i + PIECE] for i in range(0, len(value), PIECE))
        return f"[{','.join(json_text(piece)[1:-1] for piece in pieces)}]"
    return json_text(value)


def unknown_model(name: str, known: Iterable[str]) -> ApiError:
    known = list(known)
    word = f"There is no model {name[:MOST_SHOWN]!r}: {nearest(name[:MOST_SHOWN], known)}"
    return ApiError(404, word, "model", "model_not_found")


def bad(field: str, message: str, code: str | None = None) -> ApiError:
    """A field with a value that cannot be."""
    return ApiError(400, message, field, code)


def queue_full() -> ApiError:
    return ApiError(
        429, "Too many requests wait: try again in a second.", None, "queue_full",
        {"Retry-After": "1"},
    )  # fmt: skip


def new_request() -> str:
    """Gives the request that is answered from here on an id."""
    made = f"req_{secrets.token_hex(8)}"
    REQUEST.set(made)
    return made


def failure(status: int, what: str, cause: object, code: str | None = None) -> ApiError:
    """A fault that is not the client's. Its cause may tell of the machine, so it is in the log
    alone, and the client gets the id under which it is there.

    Args:
      what: the beginning of the client's sentence.
    """
    kind = f"{type(cause).__name__}: " if isinstance(cause, BaseException) else ""
    print(f"request {REQUEST.get()}: {kind}{cause}", file=sys.stderr, flush=True)
    message = f"{what}: the server's log says why, at {REQUEST.get()}."
    return ApiError(status, message, None, code)


def fault(error: BaseException) -> ApiError:
    """An error that nobody has foreseen; the log has its traceback."""
    traceback.print_exception(error)
    return failure(500, "The server has a fault", error)


def install(app: FastAPI) -> None:
    """Every error that a route raises has this form."""

    @app.exception_handler(ApiError)
    async def _api(request: Request, error: ApiError) -> Response:
        return error.response

    @app.exception_handler(UserError)
    async def _user(request: Request, error: UserError) -> Response:
        return ApiError(400, str(error)).response

    @app.exception_handler(RequestValidationError)
    async def _field(request: Request, error: RequestValidationError) -> Response:
        return field_error(error.errors()).response

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        words = {
            404: f"There is nothing at {request.url.path[:MOST_SHOWN]!r}.",
            405: f"{request.method[:20]} is not allowed at {request.url.path[:MOST_SHOWN]!r}.",
        }
        message = words.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # the gate answers it
        return ApiError(error.status_code, message, headers=headers).response

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        return fault(error).response


def field_error(found: Sequence[Any]) -> ApiError:
    """The first field that pydantic found a fault in, as the client wrote it, and its faults."""
    first = found[0]
    # Of a value that may be a text or parts, the part of another kind says more than the text.
    kinds = [one for one in found if one["loc"][-1:] == ("type",) and _within(one, first)]
    found = kinds or found
    first = found[0]
    field = _field(first)
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not JSON: {first.get('ctx', {}).get('error', '')}.")
    if not field and first["type"] == "value_error":  # of several fields; the first is named first
        word = _fault(first)
        return bad(word.split()[0], f"{word}.")
    if not field:
        return ApiError(400, "The body must be a JSON object.")
    if first["type"] == "missing":
        return bad(field, f"{field} is missing.")
    if first["type"] == "extra_forbidden":
        return bad(field, f"{field} is not a field of this request.", "unknown_parameter")
    # A value that may have several types has a fault for each of them.
    faults = dict.fromkeys(_fault(one) for one in found if _field(one) == field)
    return bad(field, f"{field}: {'; or '.join(faults)[: 3 * MOST_SHOWN]}.")


def _field(one: Any) -> str:
    """Where a fault is, without pydantic's names of the types that a value may have."""
    *places, last = one["loc"]
    unknown = one["type"] == "extra_forbidden"
    kept = [place for place in places if isinstance(place, int) or place in FIELDS]
    if unknown or isinstance(last, int) or last in FIELDS:
        kept.append(last)
    return ".".join(str(place)[:MOST_SHOWN] for place in kept)


def _within(one: Any, other: Any) -> bool:
    return _field(one).startswith(f"{_field(other)}.")


def _fault(one: Any) -> str:
    return str(one["msg"]).removeprefix("Value error, ").rstrip(".")
