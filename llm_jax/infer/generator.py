"""Text generation: prefill, then a jitted loop that adds one token at a time with a KV cache."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import ComputeConfig, ModelConfig, UserError
from llm_jax.infer.kv_cache import decode_attend, empty_cache, prefill_attend
from llm_jax.infer.sampling import Sampling, choose
from llm_jax.models.protocol import model_of
from llm_jax.train.precision import as_matrices

Params = dict[str, Any]
State = dict[str, Any]
"""tokens_BS, length_B (tokens so far), done_B, finite_B (whether all logits so far were finite
numbers), caches and keys_B; `_prefill` creates it."""
CHUNK = 16
"""Tokens per row in one call of the decode loop. Streaming and timing happen between the calls."""


@dataclass(frozen=True)
class Decoder:
    """The static arguments of the compiled loop.

    Attributes:
      vocab_size: number of tokens in the tokenizer. The model's vocabulary is padded beyond it;
        the padding is never chosen.
      stop_ids: the tokens that end a row, at least one.
    """

    model: ModelConfig
    compute: ComputeConfig
    sampling: Sampling
    vocab_size: int
    stop_ids: tuple[int, ...]

    def next_logits(
        self,
        params: Params,
        tokens_BT: Any,
        positions_BT: Any,
        attend: Any,
        caches: Any,
        last_B: Any,
    ) -> tuple[jax.Array, Any]:
        """float32 logits (B, V) after column `last_B` of each row, and the caches."""
        family = model_of(self.model)
        x_BTD, caches, _ = family.hidden(
            params, tokens_BT, positions_BT, attend, self.model, self.compute, caches
        )
        logits_BV = family.logits(x_BTD[jnp.arange(len(last_B)), last_B], params, self.model)
        return jnp.where(
            jnp.arange(logits_BV.shape[-1]) < self.vocab_size, logits_BV, -jnp.inf
        ), caches


@dataclass(frozen=True)
class Generation:
    """The result of `generate`.

    Attributes:
      ids: new tokens of each row, without the token that ended it.
      stopped: whether one of `Decoder.stop_ids` ended the row.
      tokens_per_second: median over chunks of the decode loop, all rows together, without
        compilation and prefill. None if the loop did not run.
    """

    ids: list[list[int]]
    stopped: list[bool]
    tokens_per_second: float | None
    compile_seconds: float
    prefill_seconds: float


def compute_for_inference(compute: ComputeConfig) -> ComputeConfig:
    """Settings for inference: the run's dtype, and no rematerialisation, since there is no backward
    pass."""
    return ComputeConfig(dtype=compute.dtype, remat="none", scan_layers=compute.scan_layers)


def prepared(params: Params, model: ModelConfig, compute: ComputeConfig) -> Params:
    """`params` with the matrices cast to the compute dtype once, instead of at each token. What
    training keeps in float32 (norms, biases, routers) stays in float32.

    Raises:
      UserError: the family of the model cannot generate.
    """
    if not hasattr(model_of(model), "hidden"):
        raise UserError(
            f"model.kind is {model.kind!r}, which cannot generate: it has no method `hidden`."
        )
    params = jax.tree.map(jnp.asarray, params)
    return as_matrices(params, compute.dtype, model_of(model).specs(model))


def generate(
    params: Params,
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seed: int = 0,
    on_tokens: Callable[[list[list[int]]], None] | None = None,
) -> Generation:
    """Continues all prompts together until each has reached a token that ends it, or has
    `max_tokens` new tokens.

    Args:
      params: as returned by `prepared`.
      prompts: token ids, at least one per prompt (normally <s> first); lengths may differ.
      seed: seed for sampling. The tokens of a row depend on it, the prompt and the row's index.
      on_tokens: called with the new ids of each row, every `CHUNK` tokens.

    Raises:
      UserError: a prompt leaves no room for `max_tokens` in the model's context, the logits are not
        finite numbers, or the seed does not fit into 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed is {seed}: give a number from 0 to {2**32 - 1}.")
    lengths = [len(prompt) for prompt in prompts]
    check_room(decoder.model, max(lengths), max_tokens)
    prompt_BP = np.zeros((len(prompts), max(lengths)), np.int32)
    for row, prompt in zip(prompt_BP, prompts, strict=True):
        row[: len(prompt)] = prompt
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(len(prompts)))
    start = time.perf_counter()
    length_B = jnp.asarray(lengths, jnp.int32)
    prefill = _prefill.lower(params, prompt_BP, length_B, keys_B, decoder, max_tokens).compile()
    shape = jax.eval_shape(
        functools.partial(_prefill, decoder=decoder, max_tokens=max_tokens),
        params, prompt_BP, length_B, keys_B,
    )  # fmt: skip
    decode = _decode.lower(params, shape, jnp.int32(0), decoder).compile()
    compiled = time.perf_counter()
    state = jax.block_until_ready(prefill(params, prompt_BP, length_B, keys_B))
    report = _Reporter(lengths, decoder.stop_ids, on_tokens)
    report(state)
    prefilled = time.perf_counter()
    rates, left = [], max_tokens - 1
    while left > 0 and not report.finished:
        began, had = time.perf_counter(), report.total
        state = decode(params, state, jnp.int32(min(CHUNK, left)))
        left -= CHUNK
        report(state)
        rates.append((report.total - had) / (time.perf_counter() - began))
    return Generation(
        report.ids,
        report.stopped,
        float(np.median(rates)) if rates else None,
        compiled - start,
        prefilled - compiled,
    )


def check_room(model: ModelConfig, prompt: int, max_tokens: int) -> None:
    if prompt + max_tokens > model.max_seq_len:
        raise UserError(
            f"The prompt has {prompt} tokens and --max-tokens is {max_tokens}, more than the "
            f"model's context of {model.max_seq_len}: shorten one of them."
        )


def require_finite_logits(finite: np.bool_ | bool) -> None:
    if not finite:
        raise UserError(
            "The model computes logits that are not finite numbers, so no token can be chosen: its "
            "weights are too large, or broken."
        )


class _Reporter:
    """Copies new tokens from the device and passes them on."""

    def __init__(self, lengths: list[int], stop_ids: tuple[int, ...], on_tokens: Any) -> None:
        self.ids: list[list[int]] = [[] for _ in lengths]
        self.stopped = [False] * len(lengths)
        self.finished = False
        self.total = 0
        """Tokens generated so far, including those that end a row."""
        self._seen = list(lengths)
        self._stop_ids, self._on_tokens = stop_ids, on_tokens

    def __call__(self, state: State) -> None:
        require_finite_logits(np.asarray(state["finite_B"]).all())
        tokens, lengths = np.asarray(state["tokens_BS"]), np.asarray(state["length_B"])
        fresh = []
        for row, length in enumerate(lengths.tolist()):
            new = tokens[row, self._seen[row] : length].tolist()
            self.total += len(new)
            self._seen[row] = length
            if new and new[-1] in self._stop_ids:
                self.stopped[row] = True
                new.pop()
            self.ids[row] += new
            fresh.append(new)
        self.finished = all(self.stopped)
        if self._on_tokens:
            self._on_tokens(fresh)


@functools.partial(jax.jit, static_argnames=("decoder", "max_tokens"))
def _prefill(
    params: Params,
    prompt_BP: jax.Array,
    length_B: jax.Array,
    keys_B: jax.Array,
    decoder: Decoder,
    max_tokens: int,
) -> State:
    """Runs the prompts and chooses the first new token of each row."""
    B, P = prompt_BP.shape
    caches = empty_cache(decoder.model, B, P + max_tokens, jnp.dtype(decoder.compute.dtype))
    # The padding of a row does not make it longer: some rotary scalings depend on the length.
    positions_BP = jnp.minimum(jnp.arange(P), length_B[:, None] - 1)
    attend = prefill_attend(decoder.model, decoder.compute, B, P, length_B)
    logits_BV, caches = decoder.next_logits(
        params, prompt_BP, positions_BP, attend, caches, length_B - 1
    )
    state = {
        "tokens_BS": jnp.pad(jnp.asarray(prompt_BP), ((0, 0), (0, max_tokens))),
        "length_B": length_B,
        "done_B": jnp.zeros(B, bool),
        "finite_B": jnp.ones(B, bool),
        "caches": caches,
        "keys_B": keys_B,
    }
    return _append(state, logits_BV, decoder)


@functools.partial(jax.jit, static_argnames="decoder", donate_argnames="state")
def _decode(params: Params, state: State, count: jax.Array, decoder: Decoder) -> State:
    """Adds at most `count` tokens per row; fewer once every row is done."""

    def unfinished(carry: tuple[jax.Array, State]) -> jax.Array:
        added, state = carry
        return (added < count) & ~jnp.all(state["done_B"])

    def step(carry: tuple[jax.Array, State]) -> tuple[jax.Array, State]:
        added, state = carry
        position_B = state["length_B"] - 1
        token_B1 = jnp.take_along_axis(state["tokens_BS"], position_B[:, None], axis=1)
        logits_BV, caches = decoder.next_logits(
            params,
            token_B1,
            position_B[:, None],
            decode_attend(decoder.model, position_B),
            state["caches"],
            jnp.zeros_like(position_B),
        )
        return added + 1, _append({**state, "caches": caches}, logits_BV, decoder)

    return jax.lax.while_loop(unfinished, step, (jnp.int32(0), state))[1]


def _append(state: State, logits_BV: jax.Array, decoder: Decoder) -> State:
    """The state with one more token in each row that is not done."""
    length_B, done_B = state["length_B"], state["done_B"]
    # One key per row and position, so that a row's draws do not depend on when other rows end.
    keys_B = jax.vmap(jax.random.fold_in)(state["keys_B"], length_B)
    token_B = choose(logits_BV, decoder.sampling, keys_B)
    rows = jnp.arange(len(length_B))
    old_B = state["tokens_BS"][rows, length_B]
    tokens_BS = state["tokens_BS"].at[rows, length_B].set(jnp.where(done_B, old_B, token_B))
    return {
        **state,
        "tokens_BS": tokens_BS,
        "length_B": jnp.where(done_B, length_B, length_B + 1),
        "done_B": done_B | jnp.isin(token_B, jnp.array(decoder.stop_ids)),
        # The maximum, since the padding of the vocabulary is -inf.
        "finite_B": state["finite_B"] & (done_B | jnp.isfinite(jnp.max(logits_BV, axis=-1))),
    }
