"""The score of a model on a text, in the units that are reported."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LARGEST_EXPONENT = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Score:
    """Sums over the predicted tokens of a text; `a + b` is the score of both texts.

    Attributes:
      nats: sum of -log p over the targets.
      tokens: number of targets; not whole if the score is scaled.
      num_bytes: UTF-8 bytes of the targets' text.
    """

    nats: float
    tokens: float
    num_bytes: float

    def __add__(self, other: Score) -> Score:
        return Score(
            self.nats + other.nats, self.tokens + other.tokens, self.num_bytes + other.num_bytes
        )

    def scaled(self, targets: float) -> Score:
        """The score of text of the same kind with so many targets."""
        by = targets / self.tokens
        return Score(self.nats * by, self.tokens * by, self.num_bytes * by)

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte, independent of the tokenizer. `</s>` adds nats but no bytes."""
        return self.nats / math.log(2) / self.num_bytes

    @property
    def perplexity(self) -> float | None:
        """e to the power of `loss`; None if it is too large for a float."""
        return math.exp(self.loss) if self.loss < LARGEST_EXPONENT else None

    def report(self) -> dict[str, Any]:
        """The figures for JSON: `loss`, `perplexity`, `bits_per_byte`, `tokens` and `bytes`."""
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": round(self.tokens),
            "bytes": round(self.num_bytes),
        }


def together(scores: Sequence[Score], shares: Sequence[float] | None) -> Score:
    """The score of all texts: each with its own tokens, or mixed by `shares`."""
    return sum(scores[1:], start=scores[0]) if shares is None else mixed(scores, shares)


def mixed(scores: Sequence[Score], shares: Sequence[float]) -> Score:
    """The score of as many targets in all, of which each text has its share."""
    targets = sum(score.tokens for score in scores)
    parts = [one.scaled(targets * share) for one, share in zip(scores, shares, strict=True)]
    return sum(parts[1:], start=parts[0])
