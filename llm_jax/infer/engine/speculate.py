"""The compiled program of speculative decoding: rounds of drafts, which the model checks together.

A round drafts K tokens for each row, computes the model at all of them together, and keeps those
that it accepts and one more (`infer/speculative.py`). What refused drafts leave in the cache lies
behind the text, where no query reads it, and is overwritten.

A row with penalties, biases or a constraint has no drafts: a round adds one token, as plain
decoding does.

Shape letters as in `programs.py`, and T = K + 1 positions that are checked.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.infer.decoder import Params
from llm_jax.infer.engine.arrays import STEPS, Decoding, Made, nothing_made, token_log_probs
from llm_jax.infer.engine.cache import Rows
from llm_jax.infer.engine.programs import Programs, Shapes, placed
from llm_jax.infer.engine.request import Kind
from llm_jax.infer.row_sampling import count_tokens, draw_rows, most_likely, row_logits
from llm_jax.infer.speculative import accept_drawn, accept_rows, choose_each, look_up, repeated


class Drafts(NamedTuple):
    """What a round drafts.

    Attributes:
      count_S: drafts of each row.
      logits_SKV: logits that they were drawn from; None: they are not random.
    """

    token_SK: jax.Array
    count_S: jax.Array
    logits_SKV: jax.Array | None


class Rounds(NamedTuple):
    """The state of a call, and its result.

    Attributes:
      text_SM: tokens of each row's text, for drafts that are looked up.
      shaped_S: rows with penalties, biases or a constraint.
      shaping: theirs; None: there is no such row.
      made: as of `Programs.decode`, with room for the tokens of the last round.
      count_S: new tokens of each row so far.
      drafted, accepted: numbers of drafts, and of those that were accepted.
    """

    cache: Any
    draft_cache: Any
    state: Decoding
    text_SM: Any
    shaped_S: Any
    shaping: Any
    made: Made
    count_S: Any
    drafted: Any
    accepted: Any


class SpeculativePrograms(Programs):
    """The programs for `shapes`, with rounds of `drafts` drafts; get them by `speculative_for`.

    Args:
      draft: shapes of the draft model; None: drafts are looked up in the text.
    """

    def __init__(self, shapes: Shapes, drafts: int, draft: Shapes | None) -> None:
        super().__init__(shapes)
        self.drafts, self.draft = drafts, None if draft is None else Programs(draft)
        self.speculate = jax.jit(self._speculate, donate_argnums=(1, 3, 7), static_argnames="kind")
        self.draft_prefill = jax.jit(self._draft_prefill, donate_argnums=1)

    def _draft_prefill(
        self, params: Params, cache: Any, token_RT: Any, slot_R: Any, start_R: Any, count_R: Any
    ) -> Any:
        """The draft's cache with a piece of each row, as of `Programs.prefill`."""
        assert self.draft is not None
        self.compiled += 1
        piece = (token_RT, slot_R, start_R, count_R, start_R + count_R)
        return self.draft._prefill(params, cache, *piece, None, scored=False)[0]

    def _speculate(
        self,
        params: Params,
        cache: Any,
        draft_params: Params | None,
        draft_cache: Any,
        state: Decoding,
        text_SM: Any,
        shaped_S: Any,
        shaping: Any,
        steps: Any,
        wants_top: Any,
        kind: Kind,
    ) -> Rounds:
        """Rounds until a row has `steps` new tokens, or all have what they may have."""
        self.compiled += 1
        S, none = self.shapes.slots, jnp.int32(0)
        made = nothing_made(S, STEPS + self.drafts)
        texts = (text_SM, shaped_S, shaping, made, jnp.zeros(S, jnp.int32))
        start = Rounds(cache, draft_cache, state, *texts, none, none)

        def unfinished(now: Rounds) -> jax.Array:
            return jnp.any(now.state.left_S > 0) & (jnp.max(now.count_S) < steps)

        def one_round(now: Rounds) -> Rounds:
            assert draft_params is not None
            drafts, cache = self._model_drafts(draft_params, now, kind)
            return self._round(params, now._replace(draft_cache=cache), drafts, wants_top, kind)

        if draft_params is None:
            end = self._lookup_rounds(params, start, unfinished, wants_top, kind)
        else:
            end = jax.lax.while_loop(unfinished, one_round, start)
        return end._replace(shaping=placed(end.shaping))

    def _lookup_rounds(
        self, params: Params, start: Rounds, unfinished: Any, wants_top: jax.Array, kind: Kind
    ) -> Rounds:
        """Where no text repeats itself, a round is a step of plain decoding.

        Two loops take turns, since a condition would copy the cache, which a loop does not.
        """
        Now = tuple[Rounds, Drafts]

        def looked_up(now: Rounds) -> Now:
            most_S = self._most_drafts(now)
            token_SK, count_S = look_up(now.text_SM, now.state.position_S + 1, self.drafts)
            return now, Drafts(token_SK, jnp.minimum(count_S, most_S), None)

        def rounds(both: Now, drafted: bool) -> Now:
            def goes_on(both: Now) -> jax.Array:
                return unfinished(both[0]) & (jnp.any(both[1].count_S > 0) == drafted)

            def one_round(both: Now) -> Now:
                now, drafts = both
                if not drafted:
                    drafts = drafts._replace(token_SK=drafts.token_SK[:, :0])
                return looked_up(self._round(params, now, drafts, wants_top, kind))

            return jax.lax.while_loop(goes_on, one_round, both)

        return jax.lax.while_loop(
            lambda both: unfinished(both[0]),
            lambda both: rounds(rounds(both, drafted=False), drafted=True),
            looked_up(start),
        )[0]

    def _round(
        self, params: Params, now: Rounds, drafts: Drafts, wants_top: jax.Array, kind: Kind
    ) -> Rounds:
        """Checks the drafts, and adds what is accepted and one more token of each row."""
        logits_STV, cache = self._check(params, now.cache, now.state, drafts)
        token_ST, accepted_S = self._accept(logits_STV, now.state, drafts, kind)
        active_S = now.state.left_S > 0
        if now.shaping is not None:
            token_ST, now = self._shaped(logits_STV, token_ST, now)
        now = now._replace(
            cache=cache,
            drafted=now.drafted + jnp.sum(drafts.count_S),
            accepted=now.accepted + jnp.sum(jnp.where(active_S, accepted_S, 0)),
        )
        new_S = jnp.where(active_S, accepted_S + 1, 0)
        return _taken(now, logits_STV, token_ST, new_S, wants_top)

    def _shaped(
        self, logits_STV: jax.Array, token_ST: jax.Array, now: Rounds
    ) -> tuple[jax.Array, Rounds]:
        """The tokens with those of rows that are shaped, which have one each; counts them."""
        all_, V = now.shaping, self.shapes.vocab_size
        known = jax.tree.map(lambda leaf: leaf[:, :V], all_)
        one_S = self._choose(logits_STV[:, 0], now.state, known, "shaped")
        token_ST = token_ST.at[:, 0].set(jnp.where(now.shaped_S, one_S, token_ST[:, 0]))
        counts_SV = count_tokens(all_.counts_SV, one_S, now.shaped_S & (now.state.left_S > 0))
        return token_ST, now._replace(shaping=all_._replace(counts_SV=counts_SV))

    def _most_drafts(self, now: Rounds) -> jax.Array:
        """Drafts that each row may have: one fewer than the tokens that it may still have."""
        return jnp.where(now.shaped_S, 0, jnp.clip(now.state.left_S - 1, 0, self.drafts))

    def _model_drafts(self, draft_params: Params, now: Rounds, kind: Kind) -> tuple[Drafts, Any]:
        """Drafts of the draft model, and its cache with them."""
        state, K, most_S = now.state, self.drafts, self._most_drafts(now)
        draft = self.draft
        assert draft is not None

        def step(carry: Any, i: jax.Array) -> Any:
            cache, token_S = carry
            here = state._replace(token_S=token_S, position_S=state.position_S + i)
            active_S = (state.left_S > 0) & (i <= most_S)
            x_S1D, cache = draft._one_token(draft_params, cache, here, active_S)
            logits_SV = draft._logits(draft_params, x_S1D[:, 0])[:, : self.shapes.vocab_size]
            if kind == "greedy":
                token_S = most_likely(logits_SV)
                return (cache, token_S), (token_S, None)
            logits_SV = row_logits(logits_SV, state.sampling)
            token_S = draw_rows(logits_SV, _keys(state, 1 + i))
            return (cache, token_S), (token_S, logits_SV)

        # One step more than drafts: the draft's cache takes the last one too.
        steps = jnp.arange(K + 1)
        (cache, _), (token, logits) = jax.lax.scan(step, (now.draft_cache, state.token_S), steps)
        logits_SKV = None if logits is None else jnp.swapaxes(logits[:K], 0, 1)
        return Drafts(token[:K].T, most_S, logits_SKV), cache

    def _check(
        self, params: Params, cache: Any, state: Decoding, drafts: Drafts
    ) -> tuple[jax.Array, Any]:
        """Logits (S, T, V) after the last token of each text and after each of its drafts."""
        token_ST = jnp.concatenate([state.token_S[:, None], drafts.token_SK], axis=1)
        place_T, active_S = jnp.arange(token_ST.shape[1]), state.left_S > 0
        last_S = state.position_S + drafts.count_S
        position_ST = jnp.minimum(state.position_S[:, None] + place_T, last_S[:, None])
        write_ST = active_S[:, None] & (place_T <= drafts.count_S[:, None])
        reach = jnp.max(jnp.where(active_S, last_S + 1, 0))
        rows = Rows(None, position_ST, write_ST, last_S, last_S + 1, reach)
        x_STD, cache = self._hidden(params, cache, token_ST, rows)
        return self._logits(params, x_STD)[..., : self.shapes.vocab_size], cache

    def _accept(
        self, logits_STV: jax.Array, state: Decoding, drafts: Drafts, kind: Kind
    ) -> tuple[jax.Array, jax.Array]:
        """As `accept_rows`."""
        S, T, V = logits_STV.shape
        if drafts.logits_SKV is not None:
            p = row_logits(logits_STV.reshape(S * T, V), repeated(state.sampling, T))
            p_STV = p.reshape(S, T, V)
            count_S, keys_S = drafts.count_S, _keys(state, 0)
            return accept_rows(drafts.token_SK, count_S, drafts.logits_SKV, p_STV, keys_S)
        if kind == "greedy":
            drawn_ST = most_likely(logits_STV.reshape(S * T, V)).reshape(S, T)
        else:
            ahead_T = jnp.arange(T)
            at_ST = state.position_S[:, None] + 1 + ahead_T
            seed_ST = jnp.broadcast_to(state.seed_S[:, None], (S, T))
            drawn_ST = choose_each(
                logits_STV, state.sampling, jax.vmap(_plain_keys)(seed_ST, at_ST)
            )
        return accept_drawn(drafts.token_SK, drafts.count_S, drawn_ST)


def _plain_keys(seed_S: jax.Array, position_S: jax.Array) -> jax.Array:
    """The keys with which plain decoding draws the tokens at these positions."""
    return jax.vmap(lambda seed, at: jax.random.fold_in(jax.random.key(seed), at))(
        seed_S, position_S
    )


def _keys(state: Decoding, use: jax.Array | int) -> jax.Array:
    """Keys of a round, one for each use."""
    plain_S = _plain_keys(state.seed_S, state.position_S + 1)
    return jax.vmap(jax.random.fold_in, (0, None))(plain_S, use)


def _taken(
    now: Rounds, logits_STV: jax.Array, token_ST: jax.Array, new_S: jax.Array, wants_top: jax.Array
) -> Rounds:
    """The state with `new_S` more tokens of each row."""
    state, made = now.state, now.made
    S, T = token_ST.shape
    row_S1, place_T = jnp.arange(S)[:, None], jnp.arange(T)
    new_ST = place_T < new_S[:, None]
    token_ST = jnp.maximum(token_ST, 0)

    def put(all_: jax.Array, first_S: jax.Array, one: jax.Array) -> jax.Array:
        at_ST = jnp.where(new_ST, first_S[:, None] + place_T, all_.shape[1])
        return all_.at[row_S1, at_ST].set(one, mode="drop")

    zeros = tuple(jnp.zeros((S, T, *leaf.shape[2:]), leaf.dtype) for leaf in made[2:])
    log_probs = jax.lax.cond(
        wants_top, lambda: token_log_probs(logits_STV, token_ST), lambda: zeros
    )
    finite_ST = jnp.isfinite(jnp.max(logits_STV, axis=-1))
    new = (token_ST, finite_ST, *log_probs)
    last_S = jnp.take_along_axis(token_ST, jnp.maximum(new_S - 1, 0)[:, None], axis=1)[:, 0]
    return now._replace(
        made=Made(*(put(all_, now.count_S, one) for all_, one in zip(made, new, strict=True))),
        text_SM=put(now.text_SM, state.position_S + 1, token_ST),
        count_S=now.count_S + new_S,
        state=state._replace(
            token_S=jnp.where(new_S > 0, last_S, state.token_S),
            position_S=state.position_S + new_S,
            left_S=state.left_S - new_S,
            made_S=state.made_S + new_S,
        ),
    )


@functools.lru_cache(maxsize=16)
def speculative_for(shapes: Shapes, drafts: int, draft: Shapes | None) -> SpeculativePrograms:
    """The programs of engines of these shapes."""
    return SpeculativePrograms(shapes, drafts, draft)
