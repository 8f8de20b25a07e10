"""Bodies of requests, read and checked beside the event loop.

A thread gives way to the loop between bodies, not within one: what pydantic reads at once is done
under the interpreter's lock. So it reads bytes itself, which is several times as fast as Python's
objects first, lists end at their first fault (`fail_fast` in `schema.py`), and what would take long
is refused before (`json_size.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from llm_jax.serve.errors import ApiError
from llm_jax.serve.json_size import size_of

MOST_VALUES = 1 << 20
MOST_GROUPS = 1 << 15
MOST_STRINGS = 1 << 16
"""Of a body: values in all, lists and objects, strings with the names of fields. Far more than a
request needs whose prompts are texts or lists of ids."""
MOST_FAULTS = 64
"""Of a body, the first so many are looked at; one field's are together."""


class _Read(Request):
    """A request whose body is a value already."""

    value: Any

    async def json(self) -> Any:
        return self.value


class BodyRoute(APIRoute):
    """A route with an argument `body`, if it has one, that is a pydantic model."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        model = get_type_hints(self.endpoint).get("body")
        if model is None:
            return handle

        async def read_first(request: Request) -> Response:
            made = _Read(request.scope, request.receive)
            if content := await made.body():
                made.value = await asyncio.to_thread(checked, model, content)
            return await handle(made)

        return read_first


def checked(model: type[BaseModel], content: bytes) -> BaseModel:
    """A body as `model`.

    Raises:
      RequestValidationError: it is not JSON, or a field is wrong.
      ApiError: it has too many values.
    """
    _require_readable(content)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
    raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in found])


def _require_readable(content: bytes) -> None:
    """Raises `ApiError` for a body with so many values that reading it would stop other answers."""
    if len(content) <= MOST_GROUPS:  # a byte each
        return
    size = size_of(content)
    for count, most, name in (
        (size.groups, MOST_GROUPS, "lists and objects"),
        (size.strings, MOST_STRINGS, "strings"),
        (size.values, MOST_VALUES, "values"),
    ):
        if count > most:
            raise ApiError(
                400, f"The body has {count:,} {name}: at most {most:,} are read.", None,
                "body_too_complex",
            )  # fmt: skip
