"""Vectors of words and texts, and what is near them.

A word's vector is the mean of the embedding table's rows of its pieces; a text's is the mean of the
model's last hidden states over its tokens. Shape letters: V vocabulary, D width, n texts.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import (
    Architecture,
    EncoderDecoderConfig,
    UserError,
    layers_of,
)
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import PLAIN, model_of

UNIT = 32
"""Lengths are rounded up to multiples of it, so that few are compiled."""


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
    if isinstance(model.config, EncoderDecoderConfig):
        raise UserError(f"Hidden states of model.kind {model.config.kind!r} are not averaged.")
    return np.stack([_of_text(model, text) for text in texts])


def _of_text(model: Embedding, text: str) -> np.ndarray:
    ids, most = _ids(model, text), model.config.max_seq_len
    if len(ids) > most:
        raise UserError(f"The text {text[:40]!r}… has {len(ids)} tokens: the model takes {most}.")
    return of_ids(model, ids)


def of_ids(model: Embedding, ids: Sequence[int]) -> np.ndarray:
    """Mean hidden state of a text's tokens, at least one and at most the model's context; float32
    (D,)."""
    most = model.config.max_seq_len
    length = min(most, -(-len(ids) // UNIT) * UNIT)
    tokens_1T = np.zeros((1, length), np.int32)
    tokens_1T[0, : len(ids)] = ids
    with jax.default_matmul_precision("highest"):
        hidden_TD = _hidden(model.params, tokens_1T, len(ids), model.config)
    return np.asarray(hidden_TD)[: len(ids)].mean(axis=0)


def _ids(model: Embedding, text: str) -> list[int]:
    ids = model.tokenizer.encode(text)
    if not ids:
        raise UserError(f"The text {text!r} has no token: give text.")
    return ids


@functools.partial(jax.jit, static_argnames="config")
def _hidden(
    params: dict[str, Any], tokens_1T: jax.Array, length: jax.Array, config: Architecture
) -> jax.Array:
    place_T = jnp.arange(tokens_1T.shape[1])
    # Padding does not make a text longer: some rotary scalings depend on the length.
    batch = {
        "inputs": tokens_1T,
        "segments": jnp.where(place_T < length, 1, 2)[None],  # an encoder sees both sides
        "positions": jnp.minimum(place_T, length - 1)[None],
    }
    x_TD = model_of(config).forward(params, batch, config, PLAIN).x_BTD[0]
    # A decoder's hidden states have the factor on logits already.
    return x_TD.astype(jnp.float32) / layers_of(config).logit_multiplier


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
