"""How the next token is chosen: greedy, temperature, filters, penalties and biases.

They apply in Hugging Face's order: logit bias, penalties, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from llm_jax.config import UserError
from llm_jax.infer.row_sampling import choose_rows, filter_rows, stack_rows

COLDEST, HOTTEST = 1e-4, 1e4
"""Range of temperatures in which float32 logits stay finite and distinct."""
MOST_PENALTY, MOST_BIAS = 2.0, 100.0
"""Largest presence and frequency penalty, and largest bias of a logit: those of OpenAI's API."""
REPETITION = 0.01, 100.0
"""Range of repetition penalties."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen; filters that are None are off.

    Raises:
      UserError: a value is out of range.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token (greedy)."""
    top_k: int | None = None
    """Samples only from the k most likely tokens (Fan et al. 2018)."""
    top_p: float | None = None
    """Nucleus sampling: samples only from the smallest set of most likely tokens with at least this
    total probability (Holtzman et al. 2020)."""
    min_p: float | None = None
    """Samples only from tokens with at least this fraction of the highest probability (Nguyen et
    al. 2024)."""
    repetition_penalty: float = 1.0
    """Logits of tokens of the prompt and of the text so far are divided by it, or multiplied where
    they are negative (Keskar et al. 2019); 1: off."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of each token that the new text has, as OpenAI's API does."""
    frequency_penalty: float = 0.0
    """Subtracted for each time that the new text has the token."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids, and what is added to their logits: from -100, which in effect forbids a token, to
    100."""
    min_tokens: int = 0
    """Before it has as many tokens, the text does not end with a stop token."""

    def __post_init__(self) -> None:
        if self.temperature != 0 and not COLDEST <= self.temperature <= HOTTEST:
            raise UserError(
                f"--temperature is {self.temperature}: give 0 (greedy), or a number from "
                f"{COLDEST:g} to {HOTTEST:g}."
            )
        self._check_penalties()
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"--top-k is {self.top_k}: give 1 or more.")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is {value}: give a number above 0 and at most 1.")

    def _check_penalties(self) -> None:
        least, most = REPETITION
        if not least <= self.repetition_penalty <= most:
            raise UserError(
                f"--repetition-penalty is {self.repetition_penalty}: give a number from {least:g} "
                f"to {most:g}; 1 is off."
            )
        for name in ("presence_penalty", "frequency_penalty"):
            if not -MOST_PENALTY <= getattr(self, name) <= MOST_PENALTY:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}: give a number from "
                    f"{-MOST_PENALTY:g} to {MOST_PENALTY:g}; 0 is off."
                )
        for token, bias in self.logit_bias:
            if token < 0 or not -MOST_BIAS <= bias <= MOST_BIAS:
                raise UserError(
                    f"--logit-bias gives token {token} the bias {bias}: give a token id from 0, "
                    f"and a number from {-MOST_BIAS:g} to {MOST_BIAS:g}."
                )
        if len({token for token, _ in self.logit_bias}) < len(self.logit_bias):
            raise UserError("--logit-bias names a token twice: name each once.")
        if self.min_tokens < 0:
            raise UserError(f"--min-tokens is {self.min_tokens}: give 0 or more.")

    @property
    def counts(self) -> bool:
        """Whether a penalty needs the counts of tokens."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


GREEDY = Sampling(temperature=0.0)


def filtered(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
    """Logits of the distribution to sample from, the same settings for all rows; -inf where a
    filter excludes a token. Penalties and biases are not applied."""
    return filter_rows(logits_BV, stack_rows([sampling] * len(logits_BV)))


def choose(logits_BV: jax.Array, sampling: Sampling, keys_B: jax.Array) -> jax.Array:
    """The next token of each row, (B,) int32, the same settings for all rows, without penalties and
    biases. Greedy decoding does not use `keys_B`."""
    return choose_rows(logits_BV, stack_rows([sampling] * len(logits_BV)), keys_B)
