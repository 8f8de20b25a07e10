"""From a mixture's weights, tokens and epochs to the shares of each of its stages.

A dataset alone is a mixture of one source and one stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from llm_jax.config import ConfigError, DataConfig
from llm_jax.config.mixture import MixtureConfig, MixtureStage
from llm_jax.data.blend import ONE, WHOLE, Blend, shares_of


@dataclass(frozen=True)
class Portion:
    """A stage of a mixture: the steps from `first` on, counted from 0, read `blend`."""

    first: int
    end: int
    blend: Blend


def portions(data: DataConfig, steps: int, tokens: Sequence[int]) -> list[Portion]:
    """The stages of a run of `steps` steps.

    Args:
      tokens: tokens of each source's training split.

    Raises:
      ConfigError: a stage has no step, its amounts do not add up to it, or a weight is too small.
    """
    mixture = data.mixture
    if mixture is None:
        return [Portion(0, steps, ONE)]
    mixture.check_stages(steps)
    firsts = mixture.first_steps(steps)
    ends = (*firsts[1:], steps)
    made = []
    for stage, first, end in zip(mixture.stages, firsts, ends, strict=True):
        rows = data.sequences(end) - data.sequences(first)
        sizes = dict(zip(mixture.names, tokens, strict=True))
        parts = _parts(mixture, stage, rows * data.seq_len, sizes)
        made.append(Portion(first, end, Blend(_shares(mixture, stage, parts))))
    return made


def run_shares(data: DataConfig, steps: int, tokens: Sequence[int]) -> list[float]:
    """Share of each source in the sequences of the whole run; arguments as of `portions`."""
    read = [0] * len(tokens)
    for portion in portions(data, steps, tokens):
        rows = data.sequences(portion.end) - data.sequences(portion.first)
        for place, share in enumerate(portion.blend.shares):
            read[place] += rows * share
    return [count / sum(read) for count in read]


def _parts(
    mixture: MixtureConfig, stage: MixtureStage, whole: int, tokens: dict[str, int]
) -> list[Fraction]:
    """The share of each source in a stage of `whole` tokens."""
    fixed = {
        amount.source: (amount.tokens or 0) + Fraction(amount.epochs or 0) * tokens[amount.source]
        for amount in stage.read
        if amount.weight is None
    }
    weights = {a.source: Fraction(a.weight) for a in stage.read if a.weight is not None}
    total, weighed = sum(fixed.values(), Fraction(0)), sum(weights.values(), Fraction(0))
    where = f"data.mixture: the tokens and epochs of the stage at {stage.start:g} are"
    if total > whole or (weighed and total == whole):
        raise ConfigError(
            f"{where} {round(total):,} tokens, but the stage reads {whole:,}"
            f"{' and others have weights' if weighed else ''}: lower them, or make the stage "
            "longer."
        )
    if not weighed and abs(total - whole) * BARELY > whole:
        raise ConfigError(
            f"{where} only {round(total):,} of the {whole:,} tokens that it reads: give one source "
            "a weight, which is for the rest."
        )
    if not weighed:
        return [fixed.get(name, Fraction(0)) / total for name in mixture.names]
    left = (whole - total) / weighed
    return [
        (fixed.get(name, Fraction(0)) + weights.get(name, Fraction(0)) * left) / whole
        for name in mixture.names
    ]


BARELY = 1000
"""Tokens and epochs fill a stage if less than one part of this is missing."""


def _shares(mixture: MixtureConfig, stage: MixtureStage, parts: list[Fraction]) -> tuple[int, ...]:
    shares = shares_of(parts)
    for name, part, share in zip(mixture.names, parts, shares, strict=True):
        if part > 0 and share == 0:
            raise ConfigError(
                f"data.mixture: the source {name!r} has only {float(part):.2g} of the stage at "
                f"{stage.start:g}: give it at least {1 / WHOLE:g}, or the weight 0."
            )
    return shares
