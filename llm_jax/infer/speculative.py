"""Speculative decoding: cheap drafts of the next tokens, which the model checks all at once.

The distribution of what is made is the model's own (Leviathan et al. 2023, "Fast inference from
transformers via speculative decoding"). Drafts come from a smaller model, or from the text itself,
where the same few tokens came before ("prompt lookup"; Yang et al. 2023, "Inference with
reference").

Shape letters: B rows, K drafts per row, V vocabulary, T = K + 1 positions that are checked.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from llm_jax.infer.row_sampling import RowSampling, choose_rows, draw_rows

LONGEST, SHORTEST = 4, 2
"""Tokens at the end of a text that are looked up in it: as many as have come before."""


def accept_rows(
    draft_BK: jax.Array,
    count_B: jax.Array,
    draft_BKV: jax.Array,
    target_BTV: jax.Array,
    keys_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Accepts drafts, and adds one token.

    A draft x is accepted with probability min(1, p(x)/q(x)). In place of the first that is not, a
    token is drawn from max(p - q, 0), normalised; after the last draft, from p (Leviathan et al.
    2023, §2.3).

    Args:
      draft_BK: int32 drafts, each drawn from its row of `draft_BKV`.
      count_B: how many drafts each row has.
      draft_BKV: logits of the drafts' distribution q, after filters (see `row_logits`).
      target_BTV: logits of the model's distribution p at the K drafts and after the last one, after
        the same filters.
      keys_B: one PRNG key per row.

    Returns:
      int32 tokens (B, T): the accepted drafts, one more token, and then -1; and the number of
      accepted drafts (B,).
    """
    B, K = draft_BK.shape
    log_p_BTV = jax.nn.log_softmax(target_BTV)
    log_q_BKV = jax.nn.log_softmax(draft_BKV)
    keys_B2 = jax.vmap(jax.random.split)(keys_B)
    u_BK = jax.vmap(lambda key: jax.random.uniform(key, (K,)))(keys_B2[:, 0])
    p_BK = jnp.exp(_at(log_p_BTV[:, :K], draft_BK))
    q_BK = jnp.exp(_at(log_q_BKV, draft_BK))
    accepted_B = _leading(u_BK * q_BK < p_BK, count_B)
    rows = jnp.arange(B)
    p_BV = jnp.exp(log_p_BTV[rows, accepted_B])
    q_BV = jnp.exp(log_q_BKV[rows, jnp.minimum(accepted_B, K - 1)])
    left_BV = jnp.maximum(p_BV - q_BV, 0.0)
    # Where p and q differ by rounding only, nothing may be left.
    refused_B = (accepted_B < count_B) & (jnp.sum(left_BV, axis=-1) > 0)
    last_B = draw_rows(jnp.log(jnp.where(refused_B[:, None], left_BV, p_BV)), keys_B2[:, 1])
    return _joined(draft_BK, accepted_B, last_B), accepted_B


def accept_drawn(
    draft_BK: jax.Array, count_B: jax.Array, drawn_BT: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Accepts the drafts that are what the model itself has drawn.

    For drafts that are not random, this is `accept_rows`: q(x) is 1, a draft is accepted with
    probability p(x), and what is drawn in its place is p without it. The tokens are those of plain
    decoding with the same draws, so that greedy decoding needs nothing else either.

    Args:
      draft_BK: int32 drafts.
      count_B: how many drafts each row has.
      drawn_BT: int32 tokens drawn from the model's distributions at the drafts and after the last
        one, each given the drafts before it.

    Returns:
      As of `accept_rows`.
    """
    accepted_B = _leading(draft_BK == drawn_BT[:, :-1], count_B)
    last_B = jnp.take_along_axis(drawn_BT, accepted_B[:, None], axis=1)[:, 0]
    return _joined(draft_BK, accepted_B, last_B), accepted_B


def choose_each(logits_BTV: jax.Array, rows: RowSampling, keys_BT: jax.Array) -> jax.Array:
    """`choose_rows` at each of T positions of each row, (B, T) int32, without penalties."""
    B, T, V = logits_BTV.shape
    flat = choose_rows(logits_BTV.reshape(B * T, V), repeated(rows, T), keys_BT.reshape(B * T))
    return flat.reshape(B, T)


def repeated(rows: RowSampling, times: int) -> RowSampling:
    """The settings of B rows for `times` positions of each, (B · times,)."""
    return RowSampling(*(jnp.repeat(column, times) for column in rows))


def _at(x_BKV: jax.Array, token_BK: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BKV, token_BK[..., None], axis=-1)[..., 0]


def _leading(good_BK: jax.Array, count_B: jax.Array) -> jax.Array:
    """How many drafts at the beginning of each row are all good."""
    good_BK &= jnp.arange(good_BK.shape[1]) < count_B[:, None]
    return jnp.sum(jnp.cumprod(good_BK, axis=1), axis=1, dtype=jnp.int32)


def _joined(draft_BK: jax.Array, accepted_B: jax.Array, last_B: jax.Array) -> jax.Array:
    at_T = jnp.arange(draft_BK.shape[1] + 1)
    drafts_BT = jnp.pad(draft_BK, ((0, 0), (0, 1)))
    tokens_BT = jnp.where(at_T < accepted_B[:, None], drafts_BT, -1)
    return jnp.where(at_T == accepted_B[:, None], last_B[:, None], tokens_BT).astype(jnp.int32)


def look_up(text_BS: jax.Array, length_B: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """Drafts from each text itself: what followed its last tokens when they came before, the
    longest match and then the latest first.

    Args:
      text_BS: int32 tokens of each text, and anything behind them.
      length_B: tokens of each text.
      most: K.

    Returns:
      int32 drafts (B, K), and how many each row has (B,); none if its last tokens are new.
    """
    B, S = text_BS.shape
    place_S, rows = jnp.arange(S), jnp.arange(B)[:, None]
    last_B1 = length_B[:, None] - 1
    # How many tokens up to each place equal the last ones of the text.
    run_BS, same_BS = jnp.zeros((B, S), jnp.int32), place_S < last_B1
    for back in range(LONGEST):
        shifted_BS = jnp.pad(text_BS, ((0, 0), (back, 0)), constant_values=-1)[:, :S]
        last_token_B1 = jnp.where(
            last_B1 >= back, text_BS[rows, jnp.maximum(last_B1 - back, 0)], -2
        )
        same_BS &= shifted_BS == last_token_B1
        run_BS += same_BS
    at_B = jnp.argmax(run_BS * S + place_S, axis=1)
    found_B = run_BS[rows[:, 0], at_B] >= SHORTEST
    next_BK = at_B[:, None] + 1 + jnp.arange(most)
    count_B = jnp.where(found_B, jnp.minimum(most, last_B1[:, 0] - at_B), 0)
    return text_BS[rows, jnp.minimum(next_BK, S - 1)], count_B
