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
    """

    ids: list[list[int]]
    stopped: list[bool]


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
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed is {seed}: give a number from 0 to {2**32 - 1}.")
    longest, context = max(map(len, prompts)), decoder.model.max_seq_len
    check_room(decoder.model, longest, max_tokens)
    engine = Engine.of_parameters(
        decoder.model, params, decoder.compute, decoder.vocab_size,
        settings_for(context, len(prompts), longest + max_tokens),
    )  # fmt: skip
    fresh: list[list[int]] = [[] for _ in prompts]

    def listener(row: int) -> Callable[[Ticket, TokenOut | None], None]:
        return lambda _, token: fresh[row].append(token.id) if token is not None else None

    def after_step() -> None:
        if on_tokens:
            on_tokens([list(new) for new in fresh])
        for new in fresh:
            new.clear()

    requests = [
        Request(
            prompt=tuple(prompt), max_tokens=max_tokens, sampling=decoder.sampling,
            seed=row_seed(seed, row), stop_ids=decoder.stop_ids,
        )
        for row, prompt in enumerate(prompts)
    ]  # fmt: skip
    tickets = engine.run(requests, [listener(row) for row in range(len(prompts))], after_step)
    return Generation(
        [ticket.ids for ticket in tickets], [ticket.finish_reason == "stop" for ticket in tickets]
    )


class Pace:
    """How fast an engine that does nothing else makes tokens, from here on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._compiled, self._tokens = engine.compile_seconds, engine.stats.tokens
        self._began = self._now
        self._marks: list[tuple[float, int]] = []

    @property
    def _now(self) -> float:
        """Seconds without those of compiling."""
        return time.perf_counter() - self._engine.compile_seconds

    def mark(self) -> None:
        """Called after each step."""
        if (have := self._engine.stats.tokens) > self._tokens:
            self._marks = [*self._marks[:1], (self._now, have)]

    @property
    def tokens_per_second(self) -> float | None:
        """Of all texts together, after the first step; None if there was only one."""
        if len(self._marks) < 2:
            return None
        (first, had), (last, have) = self._marks
        return (have - had) / (last - first) if last > first else None

    @property
    def compile_seconds(self) -> float:
        return self._engine.compile_seconds - self._compiled

    @property
    def prefill_seconds(self) -> float:
        """To the first tokens."""
        return self._marks[0][0] - self._began if self._marks else 0.0


def slots_for(texts: int) -> int:
    """Slots of an engine for as many texts."""
    return min(1 << (texts - 1).bit_length(), MOST_SLOTS)


def settings_for(
    context: int, texts: int, length: int, mesh: Mesh | None = None, speculate: int = 0
) -> EngineSettings:
    """Of an engine for `texts` texts of at most `length` tokens; on a mesh that divides slots, with
    as many as it divides.

    Args:
      context: of the model, or of its draft if that is shorter.
    """
    return EngineSettings(
        slots=math.lcm(slots_for(texts), 1 if mesh is None else batch_shards(mesh)),
        max_len=min(-(-length // COLUMNS) * COLUMNS, context),
        queue=max(texts, 1),
        speculate=speculate,
    )


def row_seed(seed: int, row: int) -> int:
    """The seed of one of several texts; that of row 0 is `seed`. The factor is 2^32 over the golden
    ratio, which spreads neighbours (Knuth, TAOCP 3, §6.4)."""
    return (seed + row * 0x9E3779B1) % 2**32
