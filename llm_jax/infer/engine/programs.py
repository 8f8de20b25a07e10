"""The compiled programs of an engine: a piece of prompts, steps of decoding, and copies of a slot.

All shapes are chosen when the engine is made. Engines of equal shapes share their programs.

Shape letters as in `cache.py`, and S: slots, n: steps of one call.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from llm_jax.config import ComputeConfig, DynamicRope, LongRope, ModelConfig, RecurrentConfig
from llm_jax.infer.decoder import known_only
from llm_jax.infer.engine.arrays import (
    STEPS,
    Decoding,
    Made,
    Scores,
    Shaping,
    nothing_made,
    token_log_probs,
)
from llm_jax.infer.engine.cache import Rows, empty_cache, slot_attend
from llm_jax.infer.engine.request import Kind
from llm_jax.infer.engine.weights import cache_dtype
from llm_jax.infer.row_sampling import choose_rows, count_tokens, most_likely, stops_too_early
from llm_jax.models.common.int8 import as_floats
from llm_jax.models.protocol import model_of
from llm_jax.parallel.mesh import constrain

Params = dict[str, Any]
SHORT = 16
"""Tokens of the smaller of the two sizes in which prompts are computed."""


@dataclass(frozen=True)
class Shapes:
    """What the programs are compiled for.

    Attributes:
      model: with an output matrix of its own (`weights.untied`).
      compute: `decoder.compute_for_inference` of the run's.
      vocab_size: of the tokenizer; what the model has beyond it is padding.
      max_len: columns of a slot.
    """

    model: ModelConfig | RecurrentConfig
    compute: ComputeConfig
    vocab_size: int
    slots: int
    max_len: int
    chunk: int
    mesh: Mesh | None = None

    @property
    def pieces(self) -> tuple[int, ...]:
        """Sizes in which prompts are computed."""
        return (SHORT, self.chunk) if self.chunk > SHORT else (self.chunk,)

    @property
    def length_matters(self) -> bool:
        """Whether all positions change with the length of the text."""
        model = self.model
        scaling = None if isinstance(model, RecurrentConfig) else model.rope_scaling
        return isinstance(scaling, DynamicRope | LongRope)


class Programs:
    """The programs for `shapes`; get them by `programs_for`.

    Attributes:
      compiled: programs compiled so far, by all engines that share them.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes, self.compiled = shapes, 0
        self.prefill = jax.jit(self._prefill, donate_argnums=1, static_argnames="scored")
        self.decode = jax.jit(self._decode, donate_argnums=(1, 3), static_argnames="kind")
        self.copy = jax.jit(self._copy, donate_argnums=0)
        self.set_row = jax.jit(self._set_row, donate_argnums=0)

    def cache(self) -> Any:
        """An empty cache, on the devices of the mesh."""
        one = self.shapes

        def make() -> Any:
            dtype = cache_dtype(one.compute)
            return empty_cache(one.model, one.slots, one.max_len, one.chunk, dtype)

        return make() if one.mesh is None else jax.jit(make)()

    def shaping(self) -> Shaping:
        """No penalties, biases or constraints."""
        S, V = self.shapes.slots, self.shapes.model.vocab_size

        def make() -> Shaping:
            return placed(
                Shaping(
                    jnp.zeros((S, V), jnp.int32),
                    jnp.zeros((S, V), jnp.float32),
                    jnp.ones((S, V), bool),
                )
            )

        return make() if self.shapes.mesh is None else jax.jit(make)()

    def _prefill(
        self,
        params: Params,
        cache: Any,
        token_RT: Any,
        slot_R: Any,
        start_R: Any,
        count_R: Any,
        length_R: Any,
        target_RT: Any,
        scored: bool,
    ) -> tuple[Any, Scores | None]:
        """Takes `count_R` tokens of each row's prompt, from position `start_R`, into its slot.

        Args:
          slot_R: `slots`: the row is not used.
          length_R: tokens of the whole prompt.
          target_RT: the token after each one, whose log-probability is asked for with `scored`.
        """
        self.compiled += 1
        T = token_RT.shape[1]
        last_R = start_R + count_R - 1
        place_T = jnp.arange(T)
        position_RT = jnp.minimum(start_R[:, None] + place_T, jnp.maximum(last_R, 0)[:, None])
        write_RT = (place_T < count_R[:, None]) & (slot_R < self.shapes.slots)[:, None]
        if self.shapes.length_matters:
            # One more column, which is not kept: it says how long the prompt is.
            token_RT, write_RT = (jnp.pad(x, ((0, 0), (0, 1))) for x in (token_RT, write_RT))
            position_RT = jnp.concatenate([position_RT, length_R[:, None] - 1], axis=1)
        reach = jnp.max(jnp.where(count_R > 0, last_R + 1, 0))
        rows = Rows(slot_R, position_RT, write_RT, last_R, length_R, reach)
        if isinstance(self.shapes.model, RecurrentConfig):
            x_RTD, cache = self._recurrent_piece(params, cache, token_RT, rows, start_R)
        else:
            x_RTD, cache = self._hidden(params, cache, token_RT, rows)
        if not scored:
            return cache, None
        logits_RTV = self._logits(params, x_RTD[:, :T])
        return cache, Scores(*token_log_probs(logits_RTV, target_RT))

    def _decode(
        self,
        params: Params,
        cache: Any,
        state: Decoding,
        shaping: Shaping | None,
        steps: Any,
        wants_top: Any,
        kind: Kind,
    ) -> tuple[Any, Shaping | None, Made]:
        """At most `STEPS` tokens more for each row."""
        self.compiled += 1
        S = self.shapes.slots
        made = nothing_made(S, STEPS)

        def step(carry: Any) -> Any:
            i, cache, state, shaping, made = carry
            active_S = state.left_S > 0
            x_S1D, cache = self._one_token(params, cache, state, active_S)
            logits_SV = self._logits(params, x_S1D[:, 0])
            token_S = self._choose(logits_SV, state, shaping, kind)
            log_probs = jax.lax.cond(
                wants_top,
                token_log_probs,
                lambda logits_SV, token_S: (made[2][:, 0], made[3][:, 0], made[4][:, 0]),
                logits_SV,
                token_S,
            )
            finite_S = jnp.isfinite(jnp.max(logits_SV, axis=-1)) | ~active_S
            new = (token_S, finite_S, *log_probs)
            made = Made(*(all_.at[:, i].set(one) for all_, one in zip(made, new, strict=True)))
            if shaping is not None:
                counts_SV = count_tokens(shaping.counts_SV, token_S, active_S)
                shaping = shaping._replace(counts_SV=counts_SV)
            one = active_S.astype(jnp.int32)
            state = state._replace(
                token_S=jnp.where(active_S, token_S, state.token_S),
                position_S=state.position_S + one,
                left_S=state.left_S - one,
                made_S=state.made_S + one,
            )
            return i + 1, cache, state, shaping, made

        start = (jnp.int32(0), cache, state, shaping, made)
        _, cache, _, shaping, made = jax.lax.while_loop(lambda c: c[0] < steps, step, start)
        return cache, placed(shaping), made

    def _choose(
        self, logits_SV: jax.Array, state: Decoding, shaping: Shaping | None, kind: Kind
    ) -> jax.Array:
        if kind == "greedy":
            return most_likely(logits_SV)

        def key(seed: jax.Array, position: jax.Array) -> jax.Array:
            return jax.random.fold_in(jax.random.key(seed), position)

        keys_S = jax.vmap(key)(state.seed_S, state.position_S + 1)
        if kind == "sampled" or shaping is None:
            return choose_rows(logits_SV, state.sampling, keys_S)
        forbidden_SK = stops_too_early(state.stop_SK, state.made_S, state.sampling)
        return choose_rows(logits_SV, state.sampling, keys_S, *shaping, forbidden_SK)

    def _one_token(
        self, params: Params, cache: Any, state: Decoding, active_S: jax.Array
    ) -> tuple[jax.Array, Any]:
        position_S = state.position_S
        if isinstance(self.shapes.model, RecurrentConfig):
            fresh_S1 = (active_S & (position_S == 0))[:, None]
            cache = jax.tree.map(lambda leaf: jnp.where(fresh_S1, 0.0, leaf), cache)
            # Of rows that rest, the position before the first keeps the state.
            position_S = jnp.where(active_S, position_S, -1)
        reach = jnp.max(jnp.where(active_S, position_S + 1, 0))
        rows = Rows(None, position_S[:, None], active_S[:, None], position_S, position_S + 1, reach)
        return self._hidden(params, cache, state.token_S[:, None], rows)

    def _hidden(
        self, params: Params, cache: Any, token_RT: jax.Array, rows: Rows
    ) -> tuple[jax.Array, Any]:
        one = self.shapes
        attend = None
        if not isinstance(one.model, RecurrentConfig):
            attend = slot_attend(one.model, one.max_len, one.chunk, rows)
        x_RTD, cache, _ = model_of(one.model).hidden(
            params, token_RT, rows.position_RT, attend, one.model, one.compute, cache
        )
        return x_RTD, cache

    def _recurrent_piece(
        self, params: Params, cache: Any, token_RT: jax.Array, rows: Rows, start_R: jax.Array
    ) -> tuple[jax.Array, Any]:
        """A text at its start has the state of zeros, whatever its slot holds."""
        slot_R = rows.slot_R
        goes_on_R1 = (start_R > 0)[:, None]
        state = jax.tree.map(lambda leaf: jnp.where(goes_on_R1, leaf[slot_R], 0.0), cache)
        x_RTD, state = self._hidden(params, state, token_RT, rows)
        put = jax.tree.map(lambda old, new: old.at[slot_R].set(new, mode="drop"), cache, state)
        return x_RTD, put

    def _logits(self, params: Params, x: jax.Array) -> jax.Array:
        one = self.shapes
        floats = as_floats(params, one.compute.dtype, x)
        rows = x.reshape(-1, x.shape[-1])
        logits = model_of(one.model).logits(rows, floats, one.model)
        return known_only(logits, one.vocab_size).reshape(*x.shape[:-1], -1)

    def _copy(self, cache: Any, source: Any, target: Any) -> Any:
        """The cache whose slot `target` is as `source`."""
        self.compiled += 1
        return jax.tree.map(lambda leaf: leaf.at[target].set(leaf[source]), cache)

    def _set_row(self, all_SV: Any, slot: Any, row_V: Any) -> Any:
        """`all_SV` with one row anew."""
        self.compiled += 1
        return placed(all_SV.at[slot].set(row_V))


def placed(arrays: Any) -> Any:
    """Arrays (S, V) where every program has them, or a call would compile anew."""
    return jax.tree.map(lambda leaf: constrain(leaf, "batch", None), arrays)


@functools.lru_cache(maxsize=16)
def programs_for(shapes: Shapes) -> Programs:
    """The programs of engines of these shapes."""
    return Programs(shapes)
