"""What the engine is asked for, and what it answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from llm_jax.config import UserError
from llm_jax.infer.sampling import GREEDY, Sampling

if TYPE_CHECKING:
    from llm_jax.infer.constraint import Constraint

MOST_TOP = 20
"""Most likely tokens whose log-probabilities a request can ask for."""
MOST_STOPS = 16
"""Ids that may end a text, where `Sampling.min_tokens` keeps them back."""

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to be continued, or scored.

    Raises:
      UserError: a value is out of range.
    """

    prompt: tuple[int, ...]
    """Token ids, at least one (normally <s> first)."""
    max_tokens: int
    """Most new tokens. 0: the prompt is only scored."""
    sampling: Sampling = GREEDY
    seed: int = 0
    """A draw depends on it, on the position and on the text before, not on other requests."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end the text, and do not belong to it. Empty: none does."""
    log_probs: int | None = None
    """Log-probabilities of each new token, and of this many of the most likely. None: none."""
    prompt_log_probs: int | None = None
    """The same for the tokens of the prompt, of which the first has none."""
    constraint: Constraint | None = None
    """Which tokens may come next."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UserError("The prompt has no token: begin it with that of <s>.")
        if self.max_tokens < 0:
            raise UserError(f"max_tokens is {self.max_tokens}: give 0 or more.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"The seed is {self.seed}: give a number from 0 to {2**32 - 1}.")
        for name in ("log_probs", "prompt_log_probs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MOST_TOP:
                raise UserError(f"{name} is {value}: give a number from 0 to {MOST_TOP}.")
        if self.sampling.min_tokens and len(self.stop_ids) > MOST_STOPS:
            raise UserError(
                f"min_tokens is {self.sampling.min_tokens} with {len(self.stop_ids)} ids that end "
                f"the text: give at most {MOST_STOPS}."
            )

    @property
    def kind(self) -> Kind:
        """What choosing its tokens takes."""
        one = self.sampling
        shaped = (
            one.repetition_penalty != 1
            or one.presence_penalty != 0
            or one.frequency_penalty != 0
            or bool(one.logit_bias)
            or one.min_tokens > 0
            or self.constraint is not None
        )
        return "shaped" if shaped else "greedy" if one.temperature == 0 else "sampled"


def check_ids(request: Request, vocab_size: int) -> None:
    """Raises `UserError` if a request has a token, or a constraint, of another vocabulary."""
    named = {
        "The prompt": request.prompt,
        "logit_bias": [token for token, _ in request.sampling.logit_bias],
    }
    for what, ids in named.items():
        wrong = next((token for token in ids if not 0 <= token < vocab_size), None)
        if wrong is not None:
            raise UserError(f"{what} has token {wrong}: give ids from 0 to {vocab_size - 1}.")
    if request.constraint is not None and request.constraint.vocab_size != vocab_size:
        raise UserError(
            f"The constraint is of a tokenizer of {request.constraint.vocab_size} tokens, and the "
            f"model's has {vocab_size}: make it with the model's."
        )


Kind = Literal["greedy", "sampled", "shaped"]
"""`greedy`: the most likely token. `sampled`: temperature and filters. `shaped`: also penalties,
biases and constraints. Each can do what those before it do."""
KINDS: tuple[Kind, ...] = ("greedy", "sampled", "shaped")


class TokenOut(NamedTuple):
    """A token with its log-probability in nats under the model, before temperature and filters."""

    id: int
    log_prob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens with theirs, the likeliest first."""


class Ticket:
    """The answer to a request, as far as it has been made. Any thread may read it.

    Attributes:
      tokens: the new tokens.
      prompt: the tokens of the prompt, if their log-probabilities were asked for.
      finish_reason: `stop` for a stop id or the end of the constraint, `length`, `cancelled`; None
        before the end, or if there is an error.
      error: why no token could be chosen.
      reused: tokens of the prompt that were not computed again.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens: list[TokenOut] = []
        self.prompt: list[TokenOut] = []
        self.finish_reason: Finish | None = None
        self.error: UserError | None = None
        self.reused = 0
        self._ended = threading.Event()

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    def end(self) -> None:
        """Called by the engine, once, when how it has ended is said."""
        self._ended.set()

    def wait(self, timeout: float | None = None) -> Ticket:
        """Waits for the end of the answer.

        Raises:
          UserError: no token could be chosen.
          TimeoutError: it did not end within `timeout` seconds.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"The answer did not end within {timeout} s.")
        if self.error is not None:
            raise self.error
        return self
