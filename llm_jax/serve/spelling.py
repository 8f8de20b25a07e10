"""How tokens and their log-probabilities are written in answers.

A token is its text. One whose bytes are not whole characters is written `bytes:\\xe7\\x8c`, as
OpenAI does; a special token as the vocabulary spells it.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

from llm_jax.data.tokenizers import Tokenizer
from llm_jax.infer.engine.request import TokenOut
from llm_jax.infer.streamed_text import spelled


def top_of(tokenizer: Tokenizer, out: TokenOut) -> dict[str, float] | None:
    """The most likely tokens and the chosen one: text → log-probability.

    Of tokens with the same text the most likely counts, so that the largest value is the argmax's.
    """
    if out.log_prob is None:
        return None
    found: dict[str, float] = {}
    for number, log_prob in (*out.top, (out.id, out.log_prob)):
        text = spelled(tokenizer, number)
        found[text] = max(log_prob, found.get(text, log_prob))
    return found


class Offsets:
    """Where each token begins in the text: characters before it that are whole."""

    def __init__(self, start: int = 0) -> None:
        self._at = start
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def next(self, tokenizer: Tokenizer, number: int) -> int:
        before = self._at
        self._at += len(self._decoder.decode(tokenizer.bytes_of(number)))
        return max(before, 0)


def completion_logprobs(
    tokenizer: Tokenizer, tokens: Iterable[TokenOut], offsets: Offsets
) -> dict[str, list[Any]]:
    """`logprobs` of a text of /v1/completions."""
    made: dict[str, list[Any]] = {
        "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
    }  # fmt: skip
    for out in tokens:
        made["tokens"].append(spelled(tokenizer, out.id))
        made["token_logprobs"].append(out.log_prob)
        made["top_logprobs"].append(top_of(tokenizer, out))
        made["text_offset"].append(offsets.next(tokenizer, out.id))
    return made


def chat_logprobs(tokenizer: Tokenizer, tokens: Iterable[TokenOut]) -> dict[str, list[Any]]:
    """`logprobs` of a message of /v1/chat/completions."""
    return {
        "content": [
            {
                **_chat_token(tokenizer, out.id, out.log_prob),
                "top_logprobs": [_chat_token(tokenizer, i, value) for i, value in out.top],
            }
            for out in tokens
        ],
        "refusal": [],
    }


def _chat_token(tokenizer: Tokenizer, number: int, log_prob: float | None) -> dict[str, Any]:
    content = tokenizer.bytes_of(number)
    return {"token": spelled(tokenizer, number), "logprob": log_prob, "bytes": list(content)}
