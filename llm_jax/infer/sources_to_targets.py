"""Generation of an encoder-decoder: targets from sources, greedily or by beams.

The encoder runs once, and so does what the decoder reads of it. What the decoder knows of its own
target is kept as that grows: keys and values of a Transformer, states of a recurrent network.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.attention.mask import Cache
from llm_jax.config import (
    ComputeConfig,
    SourceToTarget,
    TransformerEncoderDecoderConfig,
    UserError,
)
from llm_jax.infer.beam import widen
from llm_jax.infer.decoder import require_finite_logits
from llm_jax.models.protocol import model_of
from llm_jax.train.precision import as_matrices

Params = dict[str, Any]


@dataclass(frozen=True)
class Writer:
    """The static arguments of the compiled loops.

    Attributes:
      limit: ids from here on are padding of the vocabulary, and never chosen.
      start: the id before the first of a target.
      stop_ids: the tokens that end a target, at least one.
    """

    model: SourceToTarget
    compute: ComputeConfig
    limit: int
    start: int
    stop_ids: tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """One target.

    Attributes:
      ids: without the one that ended it.
      stopped: whether one of `Writer.stop_ids` ended it.
      log_prob: of all its tokens, the last one too, in nats.
    """

    ids: list[int]
    stopped: bool
    log_prob: float


def prepared(params: Params, model: SourceToTarget, compute: ComputeConfig) -> Params:
    """`params` with the matrices cast to the compute dtype once, instead of at each token."""
    params = jax.tree.map(jnp.asarray, params)
    return as_matrices(params, compute.dtype, model_of(model).specs(model))


def greedy(
    params: Params, writer: Writer, sources: Sequence[Sequence[int]], *, max_tokens: int
) -> list[Written]:
    """The target of each source whose every token is the most likely one.

    Args:
      params: as returned by `prepared`.
      sources: token ids with their end; lengths may differ.

    Raises:
      UserError: a source is empty, it or a target is longer than the model takes, or the logits
        are not finite.
    """
    _require_room(writer, max_tokens)
    tokens_BS, segments_BS = _padded(sources, writer)
    made = _greedy(params, tokens_BS, segments_BS, writer, max_tokens)
    tokens_Bn, score_B, finite = map(np.asarray, made)
    require_finite_logits(bool(finite))
    pairs = zip(tokens_Bn, score_B, strict=True)
    return [_written(row, float(score), writer) for row, score in pairs]


def beam(
    params: Params,
    writer: Writer,
    source: Sequence[int],
    *,
    beams: int,
    max_tokens: int,
    length_penalty: float = 0.0,
) -> Written:
    """The best target that a search with `beams` beams finds for one source.

    Args:
      length_penalty: α. Of the final beams, the one with the largest log p / ((5 + n)/6)^α is
        taken, where n counts its tokens (Wu et al. 2016, eq. 14, without coverage).

    Raises:
      UserError: as `greedy` does.
    """
    _require_room(writer, max_tokens)
    tokens_1S, segments_1S = _padded([source], writer)
    found = _beams(params, tokens_1S, segments_1S, writer, beams, max_tokens)
    tokens_Kn, score_K = map(np.asarray, found)
    made = [_written(row, float(s), writer) for row, s in zip(tokens_Kn, score_K, strict=True)]
    best = max(made, key=lambda one: _normalised(one, length_penalty))
    require_finite_logits(bool(np.isfinite(best.log_prob)))
    return best


def _normalised(one: Written, length_penalty: float) -> float:
    return one.log_prob / ((5 + len(one.ids) + one.stopped) / 6) ** length_penalty


def _require_room(writer: Writer, max_tokens: int) -> None:
    """Raises `UserError` for targets that are longer than the model has positions for."""
    model = writer.model
    if isinstance(model, TransformerEncoderDecoderConfig) and max_tokens > model.max_seq_len:
        raise UserError(
            f"A target may have {max_tokens} tokens (--max-tokens), but the model has positions "
            f"for {model.max_seq_len}: set it to that or less."
        )


def _padded(sources: Sequence[Sequence[int]], writer: Writer) -> tuple[np.ndarray, np.ndarray]:
    """Sources and their segments, (B, S) int32 each; segment 0 is padding."""
    lengths, most = [len(source) for source in sources], writer.model.max_seq_len
    for length in lengths:
        if not 0 < length <= most:
            raise UserError(f"A source has {length} tokens: the model takes 1 to {most}.")
    tokens_BS = np.zeros((len(sources), max(lengths)), np.int32)
    segments_BS = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
    for row, source in zip(tokens_BS, sources, strict=True):
        row[: len(source)] = source
    return tokens_BS, segments_BS


def _written(tokens_n: np.ndarray, score: float, writer: Writer) -> Written:
    ids = tokens_n.tolist()
    end = next((place for place, i in enumerate(ids) if i in writer.stop_ids), None)
    return Written(ids[:end], end is not None, score)


class _Decoding:
    """One step of the decoder after another, for B targets of one batch of sources."""

    def __init__(
        self, params: Params, tokens_BS: jax.Array, segments_BS: jax.Array, writer: Writer, n: int
    ) -> None:
        self.params, self.writer, self.family = params, writer, model_of(writer.model)
        self.source, self.empty = self.family.begin(
            params, tokens_BS, segments_BS, n, writer.model, writer.compute
        )

    def repeated(self, count: int) -> None:
        """From here on, `count` targets of the only source are written."""
        self.source = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=1), self.source)

    def logits(self, token_B: jax.Array, i: jax.Array, own: Cache) -> tuple[jax.Array, Cache]:
        """float32 logits (B, V) after token i of each target, and the caches of the targets.

        Args:
          token_B: the token before place i of each target.
        """
        model, compute = self.writer.model, self.writer.compute
        x_BD, own = self.family.step(self.params, token_B, i, self.source, own, model, compute)
        logits_BV = self.family.logits(x_BD, self.params, model)
        chosen = jnp.arange(logits_BV.shape[-1]) < self.writer.limit
        return jnp.where(chosen, logits_BV, -jnp.inf), own


@functools.partial(jax.jit, static_argnames=("writer", "max_tokens"))
def _greedy(
    params: Params, tokens_BS: jax.Array, segments_BS: jax.Array, writer: Writer, max_tokens: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens (B, max_tokens), log-probabilities (B,), and whether all logits were finite."""
    B = tokens_BS.shape[0]
    decoding = _Decoding(params, tokens_BS, segments_BS, writer, max_tokens)
    stops = jnp.array(writer.stop_ids)

    def step(state: dict[str, Any]) -> dict[str, Any]:
        logits_BV, caches = decoding.logits(state["token_B"], state["i"], state["caches"])
        logp_BV, done_B = jax.nn.log_softmax(logits_BV), state["done_B"]
        token_B = jnp.argmax(logp_BV, axis=-1).astype(jnp.int32)
        token_B = jnp.where(done_B, writer.stop_ids[0], token_B)
        gained_B = jnp.where(done_B, 0.0, jnp.max(logp_BV, axis=-1))
        return {
            "token_B": token_B,
            "tokens_Bn": state["tokens_Bn"].at[:, state["i"]].set(token_B),
            "score_B": state["score_B"] + gained_B,
            "done_B": done_B | jnp.isin(token_B, stops),
            "finite": state["finite"] & jnp.all(done_B | jnp.isfinite(jnp.max(logits_BV, axis=-1))),
            "i": state["i"] + 1,
            "caches": caches,
        }

    start = {
        "token_B": jnp.full((B,), writer.start, jnp.int32),
        "tokens_Bn": jnp.full((B, max_tokens), writer.stop_ids[0], jnp.int32),
        "score_B": jnp.zeros(B, jnp.float32),
        "done_B": jnp.zeros(B, bool),
        "finite": jnp.array(True),
        "i": jnp.int32(0),
        "caches": decoding.empty,
    }
    end = jax.lax.while_loop(
        lambda state: (state["i"] < max_tokens) & ~jnp.all(state["done_B"]), step, start
    )
    return end["tokens_Bn"], end["score_B"], end["finite"]


@functools.partial(jax.jit, static_argnames=("writer", "beams", "max_tokens"))
def _beams(
    params: Params,
    tokens_1S: jax.Array,
    segments_1S: jax.Array,
    writer: Writer,
    beams: int,
    max_tokens: int,
) -> tuple[jax.Array, jax.Array]:
    """The tokens (beams, max_tokens) and log-probabilities (beams,) of all final beams."""
    decoding = _Decoding(params, tokens_1S, segments_1S, writer, max_tokens + 1)
    start_1 = jnp.full((1,), writer.start, jnp.int32)
    logits_1V, caches = decoding.logits(start_1, jnp.int32(0), decoding.empty)
    decoding.repeated(beams)
    return widen(
        logits_1V,
        caches,
        lambda token_K, i, caches: decoding.logits(token_K, i + 1, caches),
        beams,
        max_tokens,
        writer.stop_ids,
    )
