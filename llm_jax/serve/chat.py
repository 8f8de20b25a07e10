"""POST /v1/chat/completions: the next message of a conversation."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llm_jax.config import UserError
from llm_jax.infer.chat_template import special_tokens
from llm_jax.serve.completions import usage
from llm_jax.serve.errors import bad, json_response
from llm_jax.serve.events import EventStream, unless_gone
from llm_jax.serve.making import Answer, Making
from llm_jax.serve.schema import ChatBody, Message, ResponseFormat
from llm_jax.serve.served import Served
from llm_jax.serve.spelling import chat_logprobs
from llm_jax.serve.to_engine import Prompt, requests_of, stops_of
from llm_jax.serve.tool_calls import ToolCalls


class Chat:
    """One request, its checks and its answer.

    Raises:
      ApiError: the model has no chat template, or a field is wrong.
    """

    def __init__(self, body: ChatBody, served: Served) -> None:
        self.body, self.served, self.n = body, served, body.n or 1
        text = conversation(body, served)
        try:
            ids = tuple(served.conversation_ids(text))
        except UserError as error:
            raise bad("messages", f"messages: {error}") from None
        if not ids:
            raise bad("messages", "The chat template makes no text of these messages.")
        self.prompt = Prompt(ids, text)
        completion_field = body.max_completion_tokens is not None
        self.requests = requests_of(
            body,
            served,
            [self.prompt],
            answers=self.n,
            max_tokens=body.max_completion_tokens if completion_field else body.max_tokens,
            limit_field="max_completion_tokens" if completion_field else "max_tokens",
            log_probs=(body.top_logprobs or 0) if body.logprobs else None,
            constraint=constraint_of(body.response_format, served),
        )
        self._with_tools = bool(body.tools) and body.tool_choice != "none"
        self.stops = stops_of(body)
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": served.name,
        }

    async def respond(self, request: Request, making: Making) -> Response:
        if self.body.stream:
            return EventStream(self._chunks(making))
        return await unless_gone(request, self._whole(making))

    async def _whole(self, making: Making) -> Response:
        async with making:
            answers = await making.finished()
        return await asyncio.to_thread(lambda: json_response(self._answer(answers)))

    def _answer(self, answers: list[Answer]) -> dict[str, Any]:
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        head = self._head | {"object": "chat.completion"}
        return head | {"choices": choices, "usage": self._usage(answers)}

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        reason = answer.finish_reason
        if self._with_tools:
            calls = ToolCalls()
            text = calls.feed(answer.text) + calls.end()
            if calls.found:
                message |= {"content": text or None, "tool_calls": calls.found}
                reason = "tool_calls"
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(answer.tokens),
            "finish_reason": reason,
        }

    def _logprobs(self, tokens: list[Any]) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        return chat_logprobs(self.served.model.tokenizer, tokens)

    def _usage(self, answers: list[Answer]) -> dict[str, int]:
        return usage(len(self.prompt.ids), sum(len(answer.tokens) for answer in answers))

    async def _chunks(self, making: Making) -> AsyncIterator[dict[str, Any]]:
        counts = bool(self.body.stream_options and self.body.stream_options.include_usage)
        head = (
            self._head | {"object": "chat.completion.chunk"} | ({"usage": None} if counts else {})
        )
        calls = [ToolCalls() for _ in range(self.n)]
        begun: set[int] = set()
        async with making:
            async for piece in making.pieces():
                text, reason = piece.text, piece.finish_reason
                delta: dict[str, Any] = {}
                if self._with_tools:
                    held = calls[piece.answer]
                    text = held.feed(text) + (held.end() if reason else "")
                    if reason and held.found:
                        reason = "tool_calls"
                        delta["tool_calls"] = [{"index": i} | c for i, c in enumerate(held.found)]
                if text:
                    delta["content"] = text
                if piece.answer not in begun:
                    delta = {"role": "assistant", "content": ""} | delta
                    begun.add(piece.answer)
                if not (delta or reason or (self.body.logprobs and piece.tokens)):
                    continue
                choice = {
                    "index": piece.answer,
                    "delta": delta,
                    "logprobs": self._logprobs(piece.tokens) if piece.tokens else None,
                    "finish_reason": reason,
                }
                yield head | {"choices": [choice]}
            if counts:
                yield head | {"choices": [], "usage": self._usage(making.answers)}


def conversation(body: ChatBody, served: Served) -> str:
    """The conversation as the model's chat template writes it."""
    if served.template is None:
        raise bad(
            "messages",
            f"{served.name!r} has no chat template: send its text to /v1/completions, or start the "
            "server with --chat-template FILE.",
            "no_chat_template",
        )
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    try:
        return served.template.text(
            [_variables(message) for message in body.messages],
            special_tokens(served.model.tokenizer),
            tools=tools if tools and body.tool_choice != "none" else None,
            more=body.chat_template_kwargs,
        )
    except UserError as error:
        raise bad("messages", str(error)) from None


def _variables(message: Message) -> dict[str, Any]:
    """A message as templates read it: its content is one text, arguments of calls are objects."""
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    # OpenAI renamed the system's role, which templates know by its old name.
    role = "system" if message.role == "developer" else message.role
    made: dict[str, Any] = {"role": role, "content": content or ""}
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": call.type,
                "function": {"name": call.function.name, "arguments": _arguments(call.function)},
            }
            for call in message.tool_calls
        ]
    return made | {
        name: value
        for name in ("name", "tool_call_id")
        if (value := getattr(message, name)) is not None
    }


def _arguments(function: Any) -> Any:
    try:
        return json.loads(function.arguments)
    except (ValueError, RecursionError):
        return function.arguments


def constraint_of(wanted: ResponseFormat | None, served: Served) -> Any:
    """Which texts an answer may be; None: all.

    Raises:
      ApiError: no text can meet the schema.
    """
    if wanted is None or wanted.type == "text":
        return None
    from llm_jax.infer.constraint import json_schema_constraint

    schema: Any = {"type": "object"}
    if wanted.json_schema is not None:
        schema = wanted.json_schema.json_schema or {}
    try:
        return json_schema_constraint(schema, served.model.tokenizer, served.stop_ids)
    except UserError as error:
        raise bad("response_format", f"response_format: {error}") from None
