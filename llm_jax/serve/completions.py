"""POST /v1/completions: texts that continue prompts, and scores of given text."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llm_jax.infer.streamed_text import TextStream
from llm_jax.serve.errors import bad, json_response
from llm_jax.serve.events import EventStream, unless_gone
from llm_jax.serve.making import Answer, Making
from llm_jax.serve.schema import CompletionBody
from llm_jax.serve.served import Served
from llm_jax.serve.spelling import Offsets, completion_logprobs
from llm_jax.serve.to_engine import Prompt, prompts_of, requests_of, stops_of

DEFAULT_TOKENS = 16


class Completion:
    """One request, its checks and its answer.

    Raises:
      ApiError: a field is wrong.
    """

    def __init__(self, body: CompletionBody, served: Served) -> None:
        self.body, self.served = body, served
        self.n = body.n or 1
        self.made = body.best_of or self.n
        if self.made < self.n:
            raise bad("best_of", f"best_of is {self.made}, less than n, which is {self.n}.")
        if self.made > self.n and body.stream:
            raise bad("best_of", "best_of chooses among finished texts: leave stream out.")
        begin = body.add_special_tokens is not False
        self.prompts = prompts_of(body.prompt, served, "prompt", begin=begin)
        scored = body.logprobs
        self.requests = requests_of(
            body,
            served,
            self.prompts,
            answers=self.made,
            max_tokens=DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens,
            log_probs=0 if scored is None and self.made > self.n else scored,
            prompt_log_probs=scored if body.echo else None,
        )
        self.stops = stops_of(body)
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
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
        # With log-probabilities of long texts it takes a while.
        return await asyncio.to_thread(lambda: json_response(self._answer(answers)))

    def _answer(self, answers: list[Answer]) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for place, prompt in enumerate(self.prompts):
            group = answers[place * self.made : (place + 1) * self.made]
            if self.made > self.n:
                group = sorted(group, key=_mean, reverse=True)[: self.n]
            for answer in group:
                choices.append(self._choice(len(choices), prompt, answer))
        return self._head | {"choices": choices, "usage": self._usage(answers)}

    def _choice(self, index: int, prompt: Prompt, answer: Answer) -> dict[str, Any]:
        text, logprobs, tokens = answer.text, None, answer.tokens
        if self.body.echo:
            text, tokens = self._echo(prompt) + text, [*answer.prompt, *tokens]
        if self.body.logprobs is not None:
            offsets = self._offsets(prompt)
            logprobs = completion_logprobs(self.served.model.tokenizer, tokens, offsets)
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": answer.finish_reason,
        }

    def _echo(self, prompt: Prompt) -> str:
        return self._decoded(prompt) if prompt.text is None else prompt.text

    def _decoded(self, prompt: Prompt) -> str:
        stream = TextStream(self.served.model.tokenizer)
        return stream.feed(prompt.ids) + stream.end()

    def _offsets(self, prompt: Prompt) -> Offsets:
        """With a prompt in the text, its tokens begin where the prompt does: some tokenizers put a
        space before a text."""
        if not self.body.echo:
            return Offsets()
        return Offsets(len(self._echo(prompt)) - len(self._decoded(prompt)))

    def _usage(self, answers: list[Answer]) -> dict[str, int]:
        prompt = sum(len(one.ids) for one in self.prompts)
        return usage(prompt, sum(len(answer.tokens) for answer in answers))

    async def _chunks(self, making: Making) -> AsyncIterator[dict[str, Any]]:
        tokenizer = self.served.model.tokenizer
        offsets = [self._offsets(self.prompts[i // self.n]) for i in range(len(self.requests))]
        begun: set[int] = set()
        counts = bool(self.body.stream_options and self.body.stream_options.include_usage)
        async with making:
            async for piece in making.pieces():
                text, tokens = piece.text, piece.tokens
                if self.body.echo and piece.answer not in begun:
                    text = self._echo(self.prompts[piece.answer // self.n]) + text
                    tokens = [*making.answers[piece.answer].prompt, *tokens]
                begun.add(piece.answer)
                scored = self.body.logprobs is not None and tokens
                if not (text or scored or piece.finish_reason):
                    continue
                choice = {
                    "index": piece.answer,
                    "text": text,
                    "logprobs": completion_logprobs(tokenizer, tokens, offsets[piece.answer])
                    if scored
                    else None,
                    "finish_reason": piece.finish_reason,
                }
                yield self._head | {"choices": [choice]} | ({"usage": None} if counts else {})
            if counts:
                yield self._head | {"choices": [], "usage": self._usage(making.answers)}


def usage(prompt: int, made: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
    }


def _mean(answer: Answer) -> float:
    """Mean log-probability of an answer's tokens."""
    values = [out.log_prob for out in answer.tokens if out.log_prob is not None]
    return sum(values) / max(1, len(values))
