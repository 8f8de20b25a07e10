"""Vectors of words and texts, and what is near them.

A word's vector is the mean of the embedding table's rows of its pieces; a text's is the mean of the
model's last hidden states over its tokens, and over its marks for an encoder with a head. Shape
letters: V vocabulary, D width, n texts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import (
    Architecture,
    SourceToTarget,
    UserError,
    layers_of,
)
from llm_jax.config.architecture import has_head
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import PLAIN, model_of

UNIT = 32
"""Lengths are rounded up to multiples of it, so that few are compiled."""
ROWS, TOKENS = 16, 4096
"""Most texts at once, and most tokens of several at once."""


class Embedding(Protocol):
    """A model with its tokenizer, such as `llm_jax.LanguageModel`."""

    @property
    def config(self) -> Architecture: ...
    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def tokenizer(self) -> Tokenizer: ...


def table(model: Embedding) -> np.ndarray:
    """Rows of the embedding table of all pieces, float32 (V, D), without the padding of the
    vocabulary.

    Raises:
      UserError: a family of your own keeps it elsewhere.
    """
    held = model.params.get("embed")
    if not isinstance(held, dict) or "tokens" not in held:
        raise UserError(
            f"model.kind is {model.config.kind!r}, which has no table at embed/tokens: give "
            "--hidden for the mean of its hidden states."
        )
    return np.asarray(held["tokens"], np.float32)[: model.tokenizer.vocab_size]


def of_words(model: Embedding, words: Sequence[str]) -> tuple[np.ndarray, list[list[int]]]:
    """Vectors of words, float32 (n, D), and the ids of the pieces of each.

    Raises:
      UserError: a word is empty.
    """
    ids = [_ids(model, word) for word in words]
    rows = table(model)
    return np.stack([rows[piece].mean(axis=0) for piece in ids]), ids


def of_texts(model: Embedding, texts: Sequence[str]) -> np.ndarray:
    """Mean hidden states of texts, float32 (n, D).

    Raises:
      UserError: a text is empty, or longer than the model's context.
    """
    if isinstance(model.config, SourceToTarget):
        raise UserError(f"Hidden states of model.kind {model.config.kind!r} are not averaged.")
    ids = [_ids_of_text(model, text) for text in texts]
    found: dict[int, np.ndarray] = {}
    for places, vectors in batches(model, ids):
        found |= zip(places, vectors, strict=True)
    return np.stack([found[place] for place in range(len(ids))])


def _ids_of_text(model: Embedding, text: str) -> list[int]:
    ids, most = _ids(model, text), model.config.max_seq_len
    if has_head(model.config):  # as it was trained: with its marks
        ids = [model.tokenizer.bos_id, *ids, model.tokenizer.eos_id]
    if len(ids) > most:
        raise UserError(f"The text {text[:40]!r}… has {len(ids)} tokens: the model takes {most}.")
    return ids


Vectors = tuple[list[int], np.ndarray]
"""Numbers of b texts, and their vectors, float32 (b, D)."""


def batches(model: Embedding, texts: Sequence[Sequence[int]]) -> Iterator[Vectors]:
    """Mean hidden states of texts, those of similar lengths together: numbers of b texts, and their
    vectors, float32 (b, D).

    Args:
      texts: ids of each, at least one and at most the model's context.
    """
    most = model.config.max_seq_len
    by_length: dict[int, list[int]] = {}
    for place, ids in enumerate(texts):
        by_length.setdefault(min(most, -(-len(ids) // UNIT) * UNIT), []).append(place)
    for length, places in by_length.items():
        rows = min(ROWS, max(1, TOKENS // length))
        for first in range(0, len(places), rows):
            some = places[first : first + rows]
            yield some, _means(model, [texts[place] for place in some], length)


def _means(model: Embedding, texts: Sequence[Sequence[int]], length: int) -> np.ndarray:
    rows = 1 << (len(texts) - 1).bit_length()  # few numbers of rows are compiled
    tokens_BT, length_B = np.zeros((rows, length), np.int32), np.ones(rows, np.int32)
    for row, ids in enumerate(texts):
        tokens_BT[row, : len(ids)], length_B[row] = ids, len(ids)
    with jax.default_matmul_precision("highest"):
        hidden_BTD = np.asarray(_hidden(model.params, tokens_BT, length_B, model.config))
    return np.stack([hidden_BTD[row, : len(ids)].mean(axis=0) for row, ids in enumerate(texts)])


def _ids(model: Embedding, text: str) -> list[int]:
    ids = model.tokenizer.encode(text)
    if not ids:
        raise UserError(f"The text {text!r} has no token: give text.")
    return ids


@functools.partial(jax.jit, static_argnames="config")
def _hidden(
    params: dict[str, Any], tokens_BT: jax.Array, length_B: jax.Array, config: Architecture
) -> jax.Array:
    place_T, length_B1 = jnp.arange(tokens_BT.shape[1]), length_B[:, None]
    # Padding does not make a text longer: some rotary scalings depend on the length.
    batch = {
        "inputs": tokens_BT,
        "segments": jnp.where(place_T < length_B1, 1, 2),  # an encoder sees both sides
        "positions": jnp.minimum(place_T, length_B1 - 1),
    }
    x_BTD = model_of(config).forward(params, batch, config, PLAIN).x_BTD
    # A decoder's hidden states have the factor on logits already.
    return x_BTD.astype(jnp.float32) / layers_of(config).logit_multiplier


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of a (n, D) with each of b (m, D); (n, m). 0 for a vector of zeros."""
    return _unit(a) @ _unit(b).T


Near = list[tuple[str, float]]
"""Pieces, and their cosines."""


def nearest(
    model: Embedding, vectors_nD: np.ndarray, count: int, but: Sequence[Sequence[int]]
) -> list[Near]:
    """For each vector the `count` pieces whose rows have the largest cosine with it, without its
    ids in `but`, special tokens and lone bytes."""
    found = []
    for near_V, given in zip(cosines(vectors_nD, table(model)), but, strict=True):
        best: Near = []
        for i in np.argsort(-near_V, kind="stable").tolist():
            piece = "" if i in given else model.tokenizer.decode([i])
            if piece.strip() and "\ufffd" not in piece:
                best.append((piece, float(near_V[i])))
            if len(best) == count:
                break
        found.append(best)
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
