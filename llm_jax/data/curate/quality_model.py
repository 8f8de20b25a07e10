"""A linear classifier of texts over hashed unigrams and bigrams of tokens, as fastText's (Joulin et
al. 2017), by logistic regression."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import UserError, read_bytes
from llm_jax.data.curate.hashing import token_hashes, windows
from llm_jax.runs.files import replacing

BUCKETS = 1 << 18
"""Weights: n-grams of the same hash modulo this share one."""
PENALTY = 1e-4
"""Of the squared weights, relative to the mean loss of a text."""
HELD_OUT = 5
"""One text of this many is held out to measure with."""
LEAST = 20
"""Texts of each kind."""


@dataclass(frozen=True)
class QualityModel:
    """Weights of a trained classifier.

    Attributes:
      weights: (BUCKETS,) float32.
      bias: of the log-odds.
    """

    weights: np.ndarray
    bias: float

    def score(self, text: str) -> float:
        """Probability that `text` is one of the good ones."""
        buckets, values = features(text)
        odds = float(self.weights[buckets] @ values) + self.bias
        return float(1 / (1 + np.exp(-np.clip(odds, -500, 500))))

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Writes the model as safetensors, with `facts` about it."""
        from safetensors.numpy import save_file

        tensors = {"weights": self.weights, "bias": np.array([self.bias], np.float32)}
        with replacing(path) as temporary:
            save_file(tensors, temporary, {"llm_jax": json.dumps({"kind": "quality", **facts})})

    @classmethod
    def load(cls, path: str) -> QualityModel:
        """Raises `UserError` if `path` is not a classifier that `save` wrote."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if not Path(path).is_file():
            raise UserError(
                f"There is no classifier {path!r}: train one with `llm-jax data classifier`."
            )
        try:
            held = load(read_bytes(path))
            weights, bias = held["weights"], float(held["bias"][0])
        except (SafetensorError, KeyError, IndexError, struct.error) as error:
            raise UserError(f"{path} is not a classifier ({error}): train it again.") from None
        if weights.shape != (BUCKETS,) or not np.isfinite(weights).all() or not np.isfinite(bias):
            raise UserError(f"{path} is not a classifier of {BUCKETS:,} weights: train it again.")
        return cls(weights, bias)


def features(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(k,) int64 buckets and (k,) float32 values of a text's n-grams, of length 1 together."""
    tokens = token_hashes(text)
    grams = np.concatenate([windows(tokens, 1), windows(tokens, 2)]) % np.uint64(BUCKETS)
    buckets, counts = np.unique(grams.astype(np.int64), return_counts=True)
    values = np.log1p(counts).astype(np.float32)
    return buckets, values / max(float(np.linalg.norm(values)), 1e-9)


def train(good: Iterable[str], bad: Iterable[str]) -> tuple[QualityModel, dict[str, Any]]:
    """A classifier of `good` from `bad` texts, and how it does on every fifth of each, held out.

    Returns:
      The model, and `good`, `bad` (numbers), `accuracy`, `auc` of the held-out texts.

    Raises:
      UserError: there are fewer than `LEAST` texts of a kind.
    """
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    rows, labels = _rows(good, bad)
    index = np.array([i for row, _ in rows for i in row], np.int64)
    values = np.array([v for _, row in rows for v in row], np.float64)
    ends = np.cumsum([0, *(len(row) for row, _ in rows)])
    matrix = csr_matrix((values, index, ends), (len(rows), BUCKETS))
    number = np.concatenate([np.arange((labels == kind).sum()) for kind in (1, 0)])
    held_out = number % HELD_OUT == HELD_OUT - 1
    known, sign = matrix[~held_out], 2.0 * labels[~held_out] - 1
    share = np.where(sign > 0, (sign > 0).sum(), (sign < 0).sum())
    weight = 0.5 / share  # both kinds count the same

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (known @ point[:-1] + point[-1])
        pull = -weight * sign / (1 + np.exp(np.clip(margin, -500, 500)))
        gradient = np.append(known.T @ pull + PENALTY * point[:-1], pull.sum())
        value = weight @ np.logaddexp(0, -margin) + 0.5 * PENALTY * point[:-1] @ point[:-1]
        return float(value), gradient

    best = minimize(loss, np.zeros(BUCKETS + 1), jac=True, method="L-BFGS-B").x
    odds = matrix[held_out] @ best[:-1] + best[-1]
    truth = labels[held_out] == 1
    facts = {
        "good": int((labels == 1).sum()),
        "bad": int((labels == 0).sum()),
        "accuracy": float(((odds > 0) == truth).mean()),
        "auc": float(_auc(odds[truth], odds[~truth])),
    }
    return QualityModel(best[:-1].astype(np.float32), float(best[-1])), facts


def _rows(
    good: Iterable[str], bad: Iterable[str]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    labels: list[int] = []
    for kind, label, texts in (("good", 1, good), ("bad", 0, bad)):
        before = len(rows)
        rows += _features(texts)
        count = len(rows) - before
        labels += [label] * count
        if count < LEAST:
            raise UserError(
                f"--{kind} has {count} documents with text: give at least {LEAST} of each kind."
            )
    return rows, np.array(labels)


def _features(texts: Iterable[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for text in texts:
        found = features(text)
        if len(found[0]):
            yield found


def _auc(good: np.ndarray, bad: np.ndarray) -> float:
    """Probability that a good text scores above a bad one; ties count half."""
    ordered = np.sort(bad)
    below = np.searchsorted(ordered, good, "left") + np.searchsorted(ordered, good, "right")
    return below.mean() / (2 * len(bad))
