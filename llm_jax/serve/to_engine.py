"""From the fields of a request to what the engine is asked for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_jax.config import UserError
from llm_jax.data.tokenizers.base import require_unicode
from llm_jax.infer.engine.request import Request
from llm_jax.infer.generator import row_seed
from llm_jax.infer.sampling import Sampling
from llm_jax.serve.errors import bad
from llm_jax.serve.schema import Sampled
from llm_jax.serve.served import Served


@dataclass(frozen=True)
class Prompt:
    """What is continued.

    Attributes:
      text: as the client wrote it; None if it sent token ids.
    """

    ids: tuple[int, ...]
    text: str | None


def prompts_of(given: Any, served: Served, field: str, *, begin: bool = True) -> list[Prompt]:
    """Prompts of a field that holds a text, texts, token ids, or lists of token ids.

    Args:
      begin: put `<s>` before texts. Token ids are taken as they are.

    Raises:
      ApiError: an id is outside of the vocabulary, or a text has no token.
    """
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    return [_prompt(one, served, field, begin) for one in given]


def _prompt(given: Any, served: Served, field: str, begin: bool) -> Prompt:
    tokenizer = served.model.tokenizer
    try:
        if isinstance(given, str):
            require_unicode(given)
            ids = [*([tokenizer.bos_id] if begin else []), *tokenizer.encode(given)]
            if not ids:
                raise bad(field, f"{field} has no token: give text.")
            return Prompt(tuple(ids), given)
        return Prompt(tuple(tokenizer.checked(given)), None)
    except UserError as error:
        raise bad(field, f"{field}: {error}") from None


def sampling_of(body: Sampled, served: Served) -> Sampling:
    """Raises `ApiError` if a value is out of range for this model."""
    bias = tuple(
        (_id(key, served, "logit_bias"), value) for key, value in (body.logit_bias or {}).items()
    )
    top_k = body.top_k if body.top_k is not None and body.top_k > 0 else None
    try:
        return Sampling(
            temperature=1.0 if body.temperature is None else body.temperature,
            top_k=top_k and min(top_k, served.model.tokenizer.vocab_size),
            top_p=body.top_p,
            min_p=body.min_p or None,
            repetition_penalty=body.repetition_penalty or 1.0,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            logit_bias=bias,
            min_tokens=body.min_tokens or 0,
        )
    except UserError as error:
        raise bad("temperature", str(error)) from None


def requests_of(
    body: Sampled,
    served: Served,
    prompts: Sequence[Prompt],
    *,
    answers: int,
    max_tokens: int | None,
    limit_field: str = "max_tokens",
    **more: Any,
) -> list[Request]:
    """One for each answer of each prompt; the answers of the first prompt come first.

    Args:
      max_tokens: None: what the context leaves.
      more: other fields of the engine's requests.

    Raises:
      ApiError: they cannot fit, or a field is wrong.
    """
    sampling = sampling_of(body, served)
    for i in body.stop_token_ids or ():
        _id(i, served, "stop_token_ids")
    stops = (*(() if body.ignore_eos else served.stop_ids), *(body.stop_token_ids or ()))
    seed = secrets.randbits(32) if body.seed is None else body.seed
    made = []
    for prompt in prompts:
        room = served.context - len(prompt.ids)
        if room < (max_tokens is None):
            raise _too_long("prompt" if hasattr(body, "prompt") else "messages", served, prompt, 0)
        if max_tokens is not None and max_tokens > room:
            raise _too_long(limit_field, served, prompt, max_tokens)
        made += [
            Request(
                prompt=prompt.ids,
                max_tokens=room if max_tokens is None else max_tokens,
                sampling=sampling,
                seed=row_seed(seed, answer),
                stop_ids=tuple(dict.fromkeys(stops)),
                **more,
            )
            for answer in range(answers)
        ]
    return made


def stops_of(body: Sampled) -> tuple[str, ...]:
    """The strings that end a text."""
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def _id(given: str | int, served: Served, field: str) -> int:
    size = served.model.tokenizer.vocab_size
    text = str(given)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < size):
        raise bad(field, f"{field}: {text[:40]!r} is not a token id, 0 to {size - 1}.")
    return int(text)


def _too_long(field: str, served: Served, prompt: Prompt, most: int) -> Exception:
    asked = f" and {most:,} are asked for" if most else ""
    return bad(
        field,
        f"The prompt has {len(prompt.ids):,} tokens{asked}, but the context has "
        f"{served.context:,}: shorten one of them.",
        "context_length_exceeded",
    )
