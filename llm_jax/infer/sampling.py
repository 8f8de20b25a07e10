"""From logits to the next token: greedy, temperature, top-k, top-p and min-p.

Filters apply in Hugging Face's order: temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from llm_jax.config import UserError

COLDEST, HOTTEST = 1e-4, 1e4
"""Range of temperatures in which float32 logits stay finite and distinct."""


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

    def __post_init__(self) -> None:
        if self.temperature != 0 and not COLDEST <= self.temperature <= HOTTEST:
            raise UserError(
                f"--temperature is {self.temperature}: give 0 (greedy), or a number from "
                f"{COLDEST:g} to {HOTTEST:g}."
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"--top-k is {self.top_k}: give 1 or more.")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is {value}: give a number above 0 and at most 1.")


GREEDY = Sampling(temperature=0.0)


def filtered(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
    """Logits of the distribution to sample from; -inf where a filter excludes a token."""
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        k = min(sampling.top_k, logits_BV.shape[-1])
        kth_B1 = jax.lax.top_k(logits_BV, k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV < kth_B1, -jnp.inf, logits_BV)
    if sampling.top_p is not None:
        sorted_BV = jnp.flip(jnp.sort(logits_BV, axis=-1), axis=-1)
        probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
        before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
        # The most likely token is always kept, whatever the rounding of the sums.
        kept_BV = (before_BV < sampling.top_p).at[:, 0].set(True)
        last_B1 = jnp.min(jnp.where(kept_BV, sorted_BV, jnp.inf), axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < last_B1, -jnp.inf, logits_BV)
    if sampling.min_p is not None:
        least_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.log(sampling.min_p)
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    return logits_BV


def choose(logits_BV: jax.Array, sampling: Sampling, keys_B: jax.Array) -> jax.Array:
    """The next token of each row, (B,) int32. Greedy decoding does not use `keys_B`."""
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    choice_B = jax.vmap(jax.random.categorical)(keys_B, filtered(logits_BV, sampling))
    return choice_B.astype(jnp.int32)
