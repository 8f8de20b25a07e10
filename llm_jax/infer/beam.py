"""Beam search for the most likely continuation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.infer.decoder import Decoder, check_room, require_finite_logits
from llm_jax.infer.kv_cache import decode_attend, empty_cache, prefill_attend

Params = dict[str, Any]


def beam_search(
    params: Params, decoder: Decoder, prompt: Sequence[int], *, beams: int, max_tokens: int
) -> tuple[list[int], bool, float]:
    """Searches for the continuation with the largest sum of log-probabilities.

    A beam that has reached a token that ends it keeps its score. There is no length penalty, so
    with enough beams the search is exact.

    Returns:
      The new ids without the one that ended them, whether there was one, and the
      log-probability in nats.

    Raises:
      UserError: the prompt leaves no room for `max_tokens`, or the logits are not finite numbers.
    """
    check_room(decoder.model, len(prompt), max_tokens)
    tokens_Kn, score_K = _search(params, np.asarray([prompt], np.int32), decoder, beams, max_tokens)
    best = int(jnp.argmax(score_K))
    require_finite_logits(bool(jnp.isfinite(score_K[best])))
    ids = np.asarray(tokens_Kn[best]).tolist()
    end = next((place for place, i in enumerate(ids) if i in decoder.stop_ids), None)
    return ids[:end], end is not None, float(score_K[best])


@functools.partial(jax.jit, static_argnames=("decoder", "beams", "max_tokens"))
def _search(
    params: Params, prompt_1P: jax.Array, decoder: Decoder, beams: int, max_tokens: int
) -> tuple[jax.Array, jax.Array]:
    """The tokens (beams, max_tokens) and log-probabilities (beams,) of all final beams."""
    P = prompt_1P.shape[1]
    caches = empty_cache(decoder.model, 1, P + max_tokens, jnp.dtype(decoder.compute.dtype))
    logits_1V, caches = decoder.next_logits(
        params,
        prompt_1P,
        jnp.arange(P)[None],
        prefill_attend(decoder.model, decoder.compute, 1, P),
        caches,
        jnp.asarray([P - 1]),
    )

    def advance(token_K: jax.Array, i: jax.Array, caches: Any) -> tuple[jax.Array, Any]:
        position_K = jnp.full((beams,), P + i)
        return decoder.next_logits(
            params,
            token_K[:, None],
            position_K[:, None],
            decode_attend(decoder.model, position_K),
            caches,
            jnp.zeros_like(position_K),
        )

    return widen(logits_1V, caches, advance, beams, max_tokens, decoder.stop_ids)


def widen(
    logits_1V: jax.Array,
    caches: Any,
    advance: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]],
    beams: int,
    max_tokens: int,
    stop_ids: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """The tokens (beams, max_tokens) and log-probabilities (beams,) of all final beams.

    Args:
      logits_1V: of the first token.
      caches: tree whose leaves have leading axes L and 1.
      advance: advance(token_K, i, caches) -> the logits (beams, V) after token i of each beam, and
        the caches.
      stop_ids: tokens that end a beam, which keeps its score.
    """
    # All beams start as the prompt. Only the first may be extended, or all would stay the same.
    start = {
        "logits_KV": jnp.repeat(logits_1V, beams, axis=0),
        "score_K": jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf),
        "tokens_Kn": jnp.full((beams, max_tokens), stop_ids[0], jnp.int32),
        "done_K": jnp.zeros(beams, bool),
        "caches": jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=1), caches),
    }

    def step(state: dict[str, Any], i: jax.Array) -> tuple[dict[str, Any], None]:
        V = state["logits_KV"].shape[-1]
        logp_KV = jax.nn.log_softmax(state["logits_KV"])
        stay_V = jnp.where(jnp.arange(V) == stop_ids[0], 0.0, -jnp.inf)
        logp_KV = jnp.where(state["done_K"][:, None], stay_V, logp_KV)
        score_K, chosen_K = jax.lax.top_k((state["score_K"][:, None] + logp_KV).reshape(-1), beams)
        parent_K, token_K = chosen_K // V, (chosen_K % V).astype(jnp.int32)
        tokens_Kn = state["tokens_Kn"][parent_K].at[:, i].set(token_K)
        caches = jax.tree.map(lambda leaf: leaf[:, parent_K], state["caches"])
        logits_KV, caches = advance(token_K, i, caches)
        done_K = state["done_K"][parent_K] | jnp.isin(token_K, jnp.array(stop_ids))
        following = {
            "logits_KV": logits_KV,
            "score_K": score_K,
            "tokens_Kn": tokens_Kn,
            "done_K": done_K,
            "caches": caches,
        }
        return following, None

    end, _ = jax.lax.scan(step, start, jnp.arange(max_tokens))
    return end["tokens_Kn"], end["score_K"]
