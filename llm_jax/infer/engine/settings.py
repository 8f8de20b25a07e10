"""The size of an engine, what it counts, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llm_jax.config import UserError

MOST_DRAFTS = 16
"""Most tokens that are drafted at a time."""


Weights = Literal["run", "int8"]


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How much an engine does at once.

    Raises:
      UserError: a value is out of range.
    """

    slots: int = 8
    """Texts that are continued at the same time."""
    max_len: int | None = None
    """Tokens of a text, with its prompt. None: the model's context. The cache is as large as
    `slots` texts of this length."""
    prefill_chunk: int = 128
    """Most tokens of a prompt that are computed before the next tokens of the other texts."""
    queue: int = 256
    """Requests that may wait for a slot."""
    speculate: int = 0
    """Tokens that are drafted for each text before the model checks them together, by the draft
    model or, without one, by what followed the same tokens earlier in the text. 0: none, or with a
    draft model 4."""
    weights: Weights = "run"
    """`run`: matrices in the run's dtype. `int8`: in 8 bits, for an engine that takes less memory
    and answers slightly differently (`int8.py`)."""

    def __post_init__(self) -> None:
        for name in ("slots", "max_len", "prefill_chunk", "queue"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}: give 1 or more.")
        if self.weights not in get_args(Weights):
            raise UserError(f"weights is {self.weights!r}: give 'run' or 'int8'.")
        if not 0 <= self.speculate <= MOST_DRAFTS:
            raise UserError(
                f"speculate is {self.speculate}: give a number from 0 to {MOST_DRAFTS}."
            )


class QueueFull(UserError):
    """As many requests wait as may."""


@dataclass
class EngineStats:
    """Counters of an engine since its start; `running` and `waiting` are those of now."""

    slots: int = 0
    running: int = 0
    waiting: int = 0
    tokens: int = 0
    """New tokens."""
    prompt_tokens: int = 0
    """Tokens of admitted prompts, with those that were reused."""
    reused_tokens: int = 0
    """Tokens of prompts that were in the cache already."""
    prefix_hits: int = 0
    """Requests that reused tokens."""
    drafted: int = 0
    """Tokens that were drafted."""
    accepted: int = 0
    """Drafted tokens that the model accepted."""
    finished: int = 0
    cancelled: int = 0
    compiled: int = 0
    """Programs that were compiled."""
