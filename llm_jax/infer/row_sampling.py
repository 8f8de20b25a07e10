"""From logits to the next token of many rows, each with its own settings, in one compiled function.

The settings are arrays, so that no value compiles anew, and what no row asks for is skipped while
the function runs: a batch of greedy rows pays for an argmax. What a row draws depends on its own
logits, settings and key alone. Nothing is sorted: a filter's threshold is found by bisection, and a
token is drawn in two steps, first its block of the vocabulary and then the token in it.

The order is that of Hugging Face: logit bias, forbidden tokens, repetition penalty, presence and
frequency penalties, temperature, top-k, top-p, min-p.

Shape letters: B rows, V vocabulary, K forbidden ids per row, N blocks of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from llm_jax.infer.sampling import Sampling

BLOCK = 128
"""Tokens in a block of the vocabulary. Two steps take V/128 + 128 random numbers, one takes V."""


class RowSampling(NamedTuple):
    """`Sampling` of each row as arrays of shape (B,). float32, but `top_k` and `min_tokens`, which
    are int32. A `top_k` of 0, a `top_p` of 1 and a `min_p` of 0 are off."""

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    repetition_penalty: jax.Array
    presence_penalty: jax.Array
    frequency_penalty: jax.Array
    min_tokens: jax.Array


def stack_rows(settings: Sequence[Sampling]) -> RowSampling:
    """The settings of the rows as NumPy arrays. Logit biases are apart: see `bias_row`."""

    def column(values: list[float] | list[int], dtype: type) -> Any:
        return np.array(values, dtype)

    return RowSampling(
        temperature=column([one.temperature for one in settings], np.float32),
        top_k=column([one.top_k or 0 for one in settings], np.int32),
        top_p=column([one.top_p or 1.0 for one in settings], np.float32),
        min_p=column([one.min_p or 0.0 for one in settings], np.float32),
        repetition_penalty=column([one.repetition_penalty for one in settings], np.float32),
        presence_penalty=column([one.presence_penalty for one in settings], np.float32),
        frequency_penalty=column([one.frequency_penalty for one in settings], np.float32),
        min_tokens=column([one.min_tokens for one in settings], np.int32),
    )


def bias_row(sampling: Sampling, vocab_size: int) -> np.ndarray:
    """`logit_bias` as a float32 row (V,) of `bias_BV`."""
    bias_V = np.zeros(vocab_size, np.float32)
    for token, bias in sampling.logit_bias:
        bias_V[token] = bias
    return bias_V


def prompt_counts(prompt: Sequence[int], vocab_size: int) -> np.ndarray:
    """A row (V,) of `counts_BV` before the first new token; int32.

    A count is twice the number of times that a token was made, plus 1 if the prompt has it: the
    repetition penalty looks at both, the presence and frequency penalties at new tokens.
    """
    counts_V = np.zeros(vocab_size, np.int32)
    counts_V[list(prompt)] = 1
    return counts_V


def count_tokens(counts_BV: jax.Array, token_B: jax.Array, active_B: jax.Array) -> jax.Array:
    """`counts_BV` with one more token in each row that is active."""
    rows = jnp.arange(len(token_B))
    return counts_BV.at[rows, token_B].add(jnp.where(active_B, 2, 0))


def stops_too_early(stop_BK: jax.Array, made_B: jax.Array, rows: RowSampling) -> jax.Array:
    """`forbidden_BK`: the tokens that would end a row before it has its `min_tokens` tokens.

    Args:
      stop_BK: int32 ids that end each row, filled up with -1.
      made_B: tokens that each row has so far.
    """
    return jnp.where((made_B < rows.min_tokens)[:, None], stop_BK, -1)


def choose_rows(
    logits_BV: jax.Array,
    rows: RowSampling,
    keys_B: jax.Array,
    counts_BV: jax.Array | None = None,
    bias_BV: jax.Array | None = None,
    allowed_BV: jax.Array | None = None,
    forbidden_BK: jax.Array | None = None,
) -> jax.Array:
    """The next token of each row, (B,) int32. Arguments that are None cost nothing.

    Args:
      logits_BV: float32; -inf for a token that cannot be chosen.
      rows: the settings. A row of temperature 0 takes its most likely token, the first of equals.
      keys_B: one PRNG key per row; greedy rows do not use theirs.
      counts_BV: tokens so far, as `prompt_counts` and `count_tokens` count them; for penalties.
      bias_BV: float32, added to the logits.
      allowed_BV: bool; the tokens that a constraint lets come next.
      forbidden_BK: int32 ids that may not come next, filled up with -1.
    """
    logits_BV = adjusted(logits_BV, rows, counts_BV, bias_BV, allowed_BV, forbidden_BK)
    greedy_B = most_likely(logits_BV)
    sampled_B = rows.temperature > 0

    def sample() -> jax.Array:
        drawn_B = draw_rows(filter_rows(logits_BV, rows), keys_B)
        return jnp.where(sampled_B, drawn_B, greedy_B)

    return jax.lax.cond(jnp.any(sampled_B), sample, lambda: greedy_B)


def row_logits(
    logits_BV: jax.Array,
    rows: RowSampling,
    counts_BV: jax.Array | None = None,
    bias_BV: jax.Array | None = None,
    allowed_BV: jax.Array | None = None,
    forbidden_BK: jax.Array | None = None,
) -> jax.Array:
    """Logits of the distribution that `choose_rows` draws from: of a greedy row all are -inf but
    one."""
    logits_BV = adjusted(logits_BV, rows, counts_BV, bias_BV, allowed_BV, forbidden_BK)
    best_B1 = most_likely(logits_BV)[:, None]
    best_BV = jnp.where(jnp.arange(logits_BV.shape[-1]) == best_B1, 0.0, -jnp.inf)
    return jnp.where((rows.temperature > 0)[:, None], filter_rows(logits_BV, rows), best_BV)


def most_likely(logits_BV: jax.Array) -> jax.Array:
    """The argmax (B,) int32, by two reductions that XLA vectorises on a CPU, which it does not do
    with an argmax."""
    V = logits_BV.shape[-1]
    best_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    first_B = jnp.min(jnp.where(logits_BV == best_B1, jnp.arange(V), V - 1), axis=-1)
    return first_B.astype(jnp.int32)


def adjusted(
    logits_BV: jax.Array,
    rows: RowSampling,
    counts_BV: jax.Array | None = None,
    bias_BV: jax.Array | None = None,
    allowed_BV: jax.Array | None = None,
    forbidden_BK: jax.Array | None = None,
) -> jax.Array:
    """Logits with bias, constraints and penalties, before temperature and filters."""
    logits_BV = logits_BV.astype(jnp.float32)
    if bias_BV is not None:
        logits_BV = logits_BV + bias_BV
    if allowed_BV is not None:
        logits_BV = jnp.where(allowed_BV, logits_BV, -jnp.inf)
    if forbidden_BK is not None:
        at_BK = jnp.where(forbidden_BK < 0, logits_BV.shape[-1], forbidden_BK)
        line_B1 = jnp.arange(len(logits_BV))[:, None]
        logits_BV = logits_BV.at[line_B1, at_BK].set(-jnp.inf, mode="drop")
    if counts_BV is None:
        return logits_BV
    penalised_B = (
        (rows.repetition_penalty != 1)
        | (rows.presence_penalty != 0)
        | (rows.frequency_penalty != 0)
    )
    return jax.lax.cond(
        jnp.any(penalised_B), _penalise, lambda logits_BV, *_: logits_BV, logits_BV, rows, counts_BV
    )


def _penalise(logits_BV: jax.Array, rows: RowSampling, counts_BV: jax.Array) -> jax.Array:
    """Repetition as in CTRL (Keskar et al. 2019, §4.1) and Hugging Face, which divides positive
    logits and multiplies negative ones; presence and frequency as OpenAI's API subtracts them."""
    penalty_B1 = rows.repetition_penalty[:, None]
    repeated_BV = jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
    logits_BV = jnp.where(counts_BV > 0, repeated_BV, logits_BV)
    made_BV = counts_BV >> 1
    logits_BV = logits_BV - rows.presence_penalty[:, None] * (made_BV > 0)
    return logits_BV - rows.frequency_penalty[:, None] * made_BV


def filter_rows(logits_BV: jax.Array, rows: RowSampling) -> jax.Array:
    """Logits after temperature, top-k, top-p and min-p; -inf where a filter excludes a token. Rows
    of temperature 0 are as of temperature 1.

    A filter keeps the tokens whose distance to the best logit is at most a threshold, and with the
    last of them all that are equally likely.
    """
    logits_BV = logits_BV / jnp.where(rows.temperature > 0, rows.temperature, 1.0)[:, None]
    best_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    best_B1 = jnp.where(jnp.isfinite(best_B1), best_B1, 0.0)
    # Floats that are not negative have the order of their bits.
    far_BV = jax.lax.bitcast_convert_type(best_B1 - logits_BV, jnp.int32)
    limit_B = jnp.full(len(logits_BV), EVERYTHING, jnp.int32)

    def top_k() -> jax.Array:
        wanted_B = jnp.where(rows.top_k > 0, rows.top_k.astype(jnp.float32), jnp.inf)
        return _reach(far_BV, jnp.ones_like(logits_BV), wanted_B)

    limit_B = jax.lax.cond(jnp.any(rows.top_k > 0), top_k, lambda: limit_B)

    def top_p(limit_B: jax.Array) -> jax.Array:
        kept_BV = far_BV <= limit_B[:, None]
        weight_BV = jnp.where(kept_BV, jnp.exp(logits_BV - best_B1), 0.0)
        wanted_B = jnp.where(rows.top_p < 1, rows.top_p * jnp.sum(weight_BV, axis=-1), jnp.inf)
        return jnp.minimum(limit_B, _reach(far_BV, weight_BV, wanted_B))

    limit_B = jax.lax.cond(jnp.any(rows.top_p < 1), top_p, lambda limit_B: limit_B, limit_B)
    kept_BV = far_BV <= limit_B[:, None]
    kept_BV &= logits_BV >= best_B1 + jnp.log(rows.min_p)[:, None]
    return jnp.where(kept_BV, logits_BV, -jnp.inf)


EVERYTHING = 0x7F80_0000
"""Bits of float32 infinity: the threshold that keeps all tokens."""


def _reach(far_BV: jax.Array, weight_BV: jax.Array, wanted_B: jax.Array) -> jax.Array:
    """The smallest threshold (B,) such that the tokens up to it have the total weight `wanted_B`;
    `EVERYTHING` if all together have less."""

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B, high_B = bounds
        middle_B = low_B + (high_B - low_B) // 2
        inside_BV = jnp.where(far_BV <= middle_B[:, None], weight_BV, 0.0)
        enough_B = jnp.sum(inside_BV, axis=-1) >= wanted_B
        low_B = jnp.where(enough_B, low_B, middle_B + 1)
        return jnp.minimum(low_B, high_B), jnp.where(enough_B, middle_B, high_B)

    zero_B = jnp.zeros_like(wanted_B, jnp.int32)
    return jax.lax.fori_loop(0, 31, halve, (zero_B, zero_B + EVERYTHING))[1]


def draw_rows(logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """A token of each row, (B,) int32: a block of the vocabulary by its total, then one of its
    tokens."""
    B, V = logits_BV.shape
    if V <= BLOCK:
        return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)
    N = -(-V // BLOCK)
    padded = jnp.pad(logits_BV, ((0, 0), (0, N * BLOCK - V)), constant_values=-jnp.inf)
    blocks = padded.reshape(B, N, BLOCK)
    total_BN = jax.nn.logsumexp(blocks, axis=-1)
    key_B2 = jax.vmap(jax.random.split)(keys_B)
    block_B = jax.vmap(jax.random.categorical)(key_B2[:, 0], total_BN)
    inside = blocks[jnp.arange(B), block_B]
    place_B = jax.vmap(jax.random.categorical)(key_B2[:, 1], inside)
    return (block_B * BLOCK + place_B).astype(jnp.int32)
