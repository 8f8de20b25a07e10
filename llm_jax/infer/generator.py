"""Text generation for a batch of prompts at once, by an engine of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jax.sharding import Mesh

from llm_jax.config import UserError
from llm_jax.infer.decoder import Decoder, Params, check_room
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.request import Request, Ticket, TokenOut
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.parallel.mesh import batch_shards


@dataclass(frozen=True)
class Generation:
    """The result of `generate`.

    Attributes:
      ids: new tokens of each row, without the token that ended it.
      stopped: whether one of `Decoder.stop_ids` ended the row.
      tokens_per_second: of all rows together, after the first step, without compilation. None if
        there was only one.
    """

    ids: list[list[int]]
    stopped: list[bool]
    tokens_per_second: float | None
    compile_seconds: float
    prefill_seconds: float


MOST_SLOTS = 32
"""Texts that `generate` continues at once."""
COLUMNS = 128
"""The length of the cache is a multiple of it, so that few lengths are compiled."""


def generate(
    params: Params,
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seed: int = 0,
    on_tokens: Callable[[list[list[int]]], None] | None = None,
) -> Generation:
    """Continues all prompts until each has reached a token that ends it, or has `max_tokens` new
    tokens.

    Args:
      params: as returned by `prepared`.
      prompts: token ids, at least one per prompt (normally <s> first); lengths may differ.
      seed: seed for sampling. The tokens of a row depend on it, the prompt and the row's index.
      on_tokens: called with the new ids of each row, after every few tokens.

    Raises:
      UserError: a prompt leaves no room for `max_tokens` in the model's context, the logits are not
        finite numbers, or the seed does not fit into 32 bits.
    """
    check_seed(seed)
    longest = max(map(len, prompts))
    check_room(decoder.model, longest, max_tokens)
    engine = engine_for(params, decoder, len(prompts), longest + max_tokens)
    return generate_by(
        engine, decoder, prompts, max_tokens=max_tokens, seed=seed, on_tokens=on_tokens
    )


def generate_by(
    engine: Engine,
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seed: int,
    on_tokens: Callable[[list[list[int]]], None] | None = None,
) -> Generation:
    """`generate` by an engine that does nothing else meanwhile."""
    began, compiled = time.perf_counter(), engine.compile_seconds
    fresh: list[list[int]] = [[] for _ in prompts]

    def on_token_of(row: int) -> Callable[[Ticket, TokenOut | None], None]:
        return lambda _, token: fresh[row].append(token.id) if token is not None else None

    tickets: list[Ticket] = []
    before, marks = engine.stats.tokens, []
    try:
        for row, prompt in enumerate(prompts):
            request = Request(
                prompt=tuple(prompt), max_tokens=max_tokens, sampling=decoder.sampling,
                seed=row_seed(seed, row), stop_ids=decoder.stop_ids,
            )  # fmt: skip
            tickets.append(engine.submit(request, on_token_of(row)))
        while engine.step():
            if engine.stats.tokens > before:
                marks.append((time.perf_counter() - engine.compile_seconds, engine.stats.tokens))
            if on_tokens:
                on_tokens([list(new) for new in fresh])
            for new in fresh:
                new.clear()
    finally:  # after an error or an interruption, the engine's next call does not go on with them
        for ticket in tickets:
            engine.cancel(ticket)
    for ticket in tickets:
        ticket.wait()
    marks = marks or [(began - compiled, before)]  # no token was asked for
    (first, had), (last, have) = marks[0], marks[-1]
    return Generation(
        [ticket.ids for ticket in tickets],
        [ticket.finish_reason == "stop" for ticket in tickets],
        (have - had) / (last - first) if last > first else None,
        engine.compile_seconds - compiled,
        max(0.0, first - (began - compiled)),
    )


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed is {seed}: give a number from 0 to {2**32 - 1}.")


def slots_for(prompts: int) -> int:
    """Slots of an engine for as many texts."""
    return min(1 << (prompts - 1).bit_length(), MOST_SLOTS)


def engine_for(
    params: Params, decoder: Decoder, prompts: int, length: int, mesh: Mesh | None = None
) -> Engine:
    """An engine for `prompts` texts of at most `length` tokens; on a mesh that divides slots, with
    as many as it divides."""
    slots = math.lcm(slots_for(prompts), 1 if mesh is None else batch_shards(mesh))
    max_len = min(-(-length // COLUMNS) * COLUMNS, decoder.model.max_seq_len)
    settings = EngineSettings(slots=slots, max_len=max_len, queue=max(prompts, 1))
    return Engine.of_parameters(
        decoder.model, params, decoder.compute, decoder.vocab_size, settings, mesh
    )


def row_seed(seed: int, row: int) -> int:
    """The seed of one of several texts; that of row 0 is `seed`. The factor is 2^32 over the golden
    ratio, which spreads neighbours (Knuth, TAOCP 3, §6.4)."""
    return (seed + row * 0x9E3779B1) % 2**32
