"""Masked language modelling (Devlin et al. 2019): -log p of tokens that an encoder does not see.

Of the tokens of each window, `data.mask_rate` are chosen. In the input, 80% of these become the
mask token, 10% a random one, and 10% stay. Marks of documents are never chosen. What is drawn
follows from `data.seed` and the window's number in the order of the run, so each epoch hides other
tokens (RoBERTa, Liu et al. 2019).

A model with `next_sentence` also learns whether two halves belong together: half of the windows
keep their second half, half of them get that of another window of the micro-batch.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import EncoderConfig, RunConfig, require
from llm_jax.data.batch import IGNORED, TOKENS, Array, Rows
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.mask import mask_id, mask_sentence
from llm_jax.models.protocol import Batch, context_of, model_of
from llm_jax.objectives.cross_entropy import cross_entropy
from llm_jax.objectives.objective import Loss, Objective, Prepare
from llm_jax.parallel.mesh import constrain

MASKED, RANDOM = 0.8, 0.1
"""Share of the chosen tokens that become the mask token, and a random one."""
PAIRED = 0.5
"""Share of the windows whose second half is that of another window."""


def masked(config: RunConfig) -> Objective:
    """The objective of a run. Its batches have (B, C) `targets` and their `places`, where C is
    `chosen_size`, in place of a target for each position."""
    chosen = Array("int32", ("batch", None), chosen_size(config))
    arrays = {
        "inputs": TOKENS,
        "segments": TOKENS,
        "positions": TOKENS,
        "places": chosen,
        "targets": chosen,
    }
    if paired(config):
        micro = config.data.batch_size // config.compute.accumulate
        require(
            micro > 1 and config.data.seq_len >= 8 and config.data.seq_len % 2 == 0,
            f"model.next_sentence is True, but a micro-batch has {micro} sequences of "
            f"{config.data.seq_len} tokens (data.seq_len): give it two or more, of an even number "
            "of tokens from 8 on.",
        )
        arrays |= {"types": TOKENS, "other": Array("int32", ("batch",))}

    def with_tokenizer(tokenizer: Tokenizer) -> Prepare:
        return _Masking(config, tokenizer)

    return Objective(loss, arrays, with_tokenizer=with_tokenizer, notice=mask_sentence)


def paired(config: RunConfig) -> bool:
    """Whether windows are made of two halves that may not belong together."""
    return isinstance(config.model, EncoderConfig) and config.model.next_sentence


def chosen_size(config: RunConfig) -> int:
    """C, room for the chosen tokens of a window: a multiple of 8, and of what splits a length."""
    most = math.ceil(config.data.mask_rate * config.data.seq_len)
    multiple = math.lcm(8, config.parallel.tensor)
    return -(-most // multiple) * multiple


class _Masking:
    """The `prepare` of a run."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        self._rate, self._seed = config.data.mask_rate, config.data.seed
        self._room, self._paired = chosen_size(config), paired(config)
        self._text = tokenizer.token_bytes > 0
        self._mask, self._marks = mask_id(tokenizer), tokenizer.marks

    def __call__(self, rows: Rows, numbers: np.ndarray) -> Rows:
        """(b, T) packed text → the arrays of a batch."""
        rows = dict(rows)
        there = rows.pop("targets") != IGNORED
        rows |= self._pair(rows, numbers) if self._paired else {}
        inputs = rows["inputs"].copy()
        b, T = inputs.shape
        may = self._text[inputs] & there
        places = np.zeros((b, self._room), np.int32)
        targets = np.full_like(places, IGNORED)
        # Halves that are exchanged take their targets along, so each has its part of the places.
        parts = 2 if self._paired else 1
        width, room = T // parts, self._room // parts
        for row, number in enumerate(numbers.tolist()):
            draw = np.random.Generator(np.random.Philox(key=[self._seed, number]))
            for part in range(parts):
                free = part * width + np.flatnonzero(may[row, part * width : (part + 1) * width])
                count = min(max(round(self._rate * len(free)), 1), len(free), room)
                chosen = np.sort(draw.permutation(free)[:count])
                kept = slice(part * room, part * room + count)
                places[row, kept], targets[row, kept] = chosen, inputs[row, chosen]
                inputs[row, chosen] = self._hidden(inputs[row, chosen], draw)
        return rows | {"inputs": inputs, "places": places, "targets": targets}

    def _hidden(self, tokens: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """What stands for `tokens` in the input: the mask, a random token, or themselves."""
        kind = draw.random(len(tokens))
        random = draw.integers(0, len(self._text), len(tokens), dtype=np.int32)
        kept = np.where(kind < MASKED + RANDOM, random, tokens)
        return np.where(kind < MASKED, np.int32(self._mask), kept)

    def _pair(self, rows: Rows, numbers: np.ndarray) -> Rows:
        """Each window as `[CLS] first half [SEP] second half [SEP]`, with the tokenizer's marks:
        they take the place of three tokens. All of it sees all of it."""
        inputs = rows["inputs"].copy()
        b, T = inputs.shape
        half = T // 2
        inputs[:, 0], inputs[:, [half - 1, T - 1]] = self._marks.begin, self._marks.end
        column = np.broadcast_to(np.arange(T, dtype=np.int32), (b, T))
        draws = [
            np.random.Generator(np.random.Philox(key=[self._seed, n], counter=1 << 128)).random()
            for n in numbers.tolist()
        ]
        return {
            "inputs": inputs,
            "segments": np.ones((b, T), np.int32),
            "positions": np.ascontiguousarray(column),
            "types": (column >= half).astype(np.int32),
            "other": (np.array(draws) < PAIRED).astype(np.int32),
        }


def loss(params: Any, batch: Batch, weight: jax.Array, config: RunConfig) -> Loss:
    """The chosen tokens' -log p, and that of whether halves belong together (`Objective.loss`)."""
    model, family = config.model, model_of(config.model)
    if paired(config):
        batch = _swapped(batch)
    hidden = family.forward(params, batch, model, context_of(config))
    x_BCD = jnp.take_along_axis(hidden.x_BTD, batch["places"][..., None], axis=1)
    x_BCD = constrain(x_BCD, "ends_batch", None, "act_embed")
    total, nats = cross_entropy(
        family.features(x_BCD, params, model),
        family.unembedding(params, model),
        batch["targets"],
        weight,
        None,
        config.compute.loss_chunk,
        config.optim.z_loss,
        params["head"]["bias"],
        config.optim.label_smoothing,
    )
    if paired(config):
        logits_B2 = family.pair_logits(hidden.x_BTD[:, 0], params, model)
        log_p_B2 = jax.nn.log_softmax(logits_B2)
        wrong_B = -jnp.take_along_axis(log_p_B2, batch["other"][:, None], axis=1)[:, 0]
        total += jnp.sum(wrong_B) / config.data.batch_size
    return Loss(total, nats, hidden.routing)


def _swapped(batch: Batch) -> Batch:
    """The batch whose rows of `other` exchange their second halves, each with the next such row.

    `other` then says which rows have another half: a row that is alone keeps its own.
    """
    other_B = batch["other"]
    B = len(other_B)
    count, rank_B = jnp.sum(other_B), jnp.cumsum(other_B) - 1
    rows_B = jnp.argsort(-other_B, stable=True)  # those of `other` first
    from_B = jnp.where(other_B == 1, rows_B[(rank_B + 1) % jnp.maximum(count, 1)], jnp.arange(B))

    def exchanged(x: jax.Array, length: str | None) -> jax.Array:
        half = x.shape[1] // 2
        joined = jnp.concatenate([x[:, :half], x[from_B, half:]], axis=1)
        return constrain(joined, "batch", length)

    made = {name: exchanged(batch[name], None) for name in ("places", "targets")}
    made["inputs"] = exchanged(batch["inputs"], "length")
    return batch | made | {"other": (from_B != jnp.arange(B)).astype(jnp.int32)}
