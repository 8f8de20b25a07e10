"""What an encoder with a head says of new text: labels, tags, answers, with probabilities."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import Architecture, EncoderConfig, ModernEncoderConfig, UserError
from llm_jax.config.architecture import has_head
from llm_jax.data.labelled.records import example_of
from llm_jax.data.labelled.rows import Encoded, cut, encode, fill
from llm_jax.data.sources.left_out import Unusable
from llm_jax.infer.embeddings import UNIT, Embedding
from llm_jax.models.protocol import PLAIN, Batch
from llm_jax.objectives.figures import best_span
from llm_jax.objectives.labels import label_logits, seen


def require_labels(model: Architecture) -> None:
    """Raises `UserError` for a model without a head of labels."""
    if not has_head(model):
        raise UserError(
            f"model.kind is {model.kind!r}, which has no head that gives labels: fine-tune an "
            "encoder on examples of `llm-jax data label`."
        )
    assert isinstance(model, EncoderConfig | ModernEncoderConfig)
    if model.head == "embed":
        raise UserError("The model's head is 'embed', which gives vectors: use `llm-jax embed`.")


def predict(model: Embedding, record: dict[str, Any]) -> dict[str, Any]:
    """What the model says of one record, which has the fields of a labelled one, and no label.

    Returns:
      For `classify`: `label`, its `probability`, and `probabilities` of all labels. For `tag`:
      `words`, `tags` and the `probabilities` of these; a word without a token of its own has None.
      For `answer`: `answer`, `start` and `end` in characters (None if there is no answer) and its
      `probability`. `cut` says whether the text was too long.

    Raises:
      UserError: the record lacks a text, or the model has no head of labels.
    """
    config = model.config
    require_labels(config)
    assert isinstance(config, EncoderConfig | ModernEncoderConfig)
    try:
        example = example_of(record, config.head, labelled=False)
        encoded = cut(
            encode(example, config.head, model.tokenizer), config.head, config.max_seq_len
        )
    except Unusable as error:
        raise UserError(
            f"The record {str(record)[:80]!r} cannot be used ({error.reason}): give "
            f"{config.head!r} its text."
        ) from None
    length = min(config.max_seq_len, -(-encoded.size // UNIT) * UNIT)
    rows = seen(fill([encoded], config.head, length, config.labels, model.tokenizer))
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(_logits(model.params, rows, config))[0]
    made = {
        "classify": _label,
        "tag": _tags,
        "answer": _answer,
    }[config.head](logits, encoded, example.texts, config.labels)
    return made | {"cut": encoded.was_cut}


@functools.partial(jax.jit, static_argnames="config")
def _logits(params: dict[str, Any], rows: Batch, config: Any) -> jax.Array:
    return label_logits(params, {k: jnp.asarray(v) for k, v in rows.items()}, config, PLAIN)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return found


def _label(
    logits_C: np.ndarray, encoded: Encoded, texts: tuple[str, ...], labels: tuple[str, ...]
) -> dict[str, Any]:
    p_C = _softmax(logits_C)
    best = int(np.argmax(p_C))
    return {
        "label": labels[best],
        "probability": float(p_C[best]),
        "probabilities": dict(zip(labels, p_C.tolist(), strict=True)),
    }


def _tags(
    logits_TC: np.ndarray, encoded: Encoded, texts: tuple[str, ...], labels: tuple[str, ...]
) -> dict[str, Any]:
    p_TC, left = _softmax(logits_TC), len(encoded.parts[0])
    places = [place if 0 <= place < left else None for place in encoded.words]
    rows = [None if place is None else p_TC[1 + place] for place in places]
    return {
        "words": list(texts),
        "tags": [None if row is None else labels[int(np.argmax(row))] for row in rows],
        "probabilities": [None if row is None else float(row.max()) for row in rows],
    }


def _answer(
    logits_2T: np.ndarray, encoded: Encoded, texts: tuple[str, ...], labels: tuple[str, ...]
) -> dict[str, Any]:
    first, end = len(encoded.parts[0]) + 2, encoded.size - 1
    begin, last = best_span(logits_2T, first, end)
    p_2T = _softmax(logits_2T)
    made: dict[str, Any] = {"answer": None, "start": None, "end": None}
    if begin:
        start, stop = encoded.spans[begin - first][0], encoded.spans[last - first][1]
        text = texts[1][start:stop]
        start += len(text) - len(text.lstrip())
        made = {"answer": text.strip(), "start": start, "end": start + len(text.strip())}
    return made | {"probability": float(p_2T[0, begin] * p_2T[1, last])}
