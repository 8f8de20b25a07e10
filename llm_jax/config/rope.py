"""Frequency scalings of rotary positions, for a longer context than that of pretraining."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from llm_jax.config.errors import positive, require


@dataclass(frozen=True, kw_only=True)
class LinearRope:
    """Position interpolation (Chen et al. 2023): every frequency is divided by `factor`.

    Raises:
      ConfigError: `factor` is below 1.
    """

    kind: Literal["linear"] = "linear"
    """Tells the scalings apart in JSON."""
    factor: float = 2.0
    """The frequencies are divided by it."""

    def __post_init__(self) -> None:
        _check_factor(self)


@dataclass(frozen=True, kw_only=True)
class DynamicRope:
    """Dynamic NTK (bloc97 and emozilla 2023; Peng et al. 2023, appendix B): the base grows with the
    length of the text, once it is longer than the context of pretraining.

    The length is that of the longest document in a row. In generation it grows with each token, and
    keys that are in the cache keep the frequencies with which they were written.

    Raises:
      ConfigError: a field is not above 0, or `factor` is below 1.
    """

    kind: Literal["dynamic"] = "dynamic"
    """Tells the scalings apart in JSON."""
    factor: float = 2.0
    """At a length of L, the base is multiplied by (factor·L/L₀ - (factor - 1))^(R/(R - 2))."""
    original_max_seq_len: int = 2048
    """Context of pretraining, L₀, in tokens."""

    def __post_init__(self) -> None:
        _check_factor(self)
        positive("model.rope_scaling", self, "original_max_seq_len")


@dataclass(frozen=True, kw_only=True)
class Llama3Rope:
    """Llama 3.1's frequency scaling: low frequencies are divided by `factor`, high ones are kept.

    Raises:
      ConfigError: a field is not above 0, `factor` is below 1, or the bounds are out of order.
    """

    kind: Literal["llama3"] = "llama3"
    """Tells the scalings apart in JSON."""
    factor: float = 8.0
    """Frequencies that are fully scaled are divided by it."""
    original_max_seq_len: int = 8192
    """Context of pretraining, in tokens."""
    low_freq_factor: float = 1.0
    """Pairs with fewer turns than this in the original context are fully scaled."""
    high_freq_factor: float = 4.0
    """Pairs with more turns than this in the original context are kept."""

    def __post_init__(self) -> None:
        _check_ramp(self, "low_freq_factor", "high_freq_factor")


@dataclass(frozen=True, kw_only=True)
class YarnRope:
    """YaRN (Peng et al. 2023): NTK-by-parts interpolation plus an attention temperature.

    Raises:
      ConfigError: a field is not above 0, `factor` is below 1, or the bounds are out of order.
    """

    kind: Literal["yarn"] = "yarn"
    """Tells the scalings apart in JSON."""
    factor: float = 4.0
    """Frequencies that are fully scaled are divided by it."""
    original_max_seq_len: int = 32768
    """Context of pretraining, in tokens."""
    beta_fast: float = 32.0
    """Pairs with more turns than this in the original context are kept."""
    beta_slow: float = 1.0
    """Pairs with fewer turns than this in the original context are fully scaled."""
    attention_factor: float | None = None
    """Factor on sin and cos. None: 0.1·ln(factor) + 1."""
    truncate: bool = True
    """Round the bounds of the ramp to whole pairs."""
    query_beta: float = 0.0
    """Queries at position t are multiplied by 1 + β·ln(1 + ⌊t/L₀⌋) (Llama 4, Ministral 3), where L₀
    is the original context. 0: they are not."""

    def __post_init__(self) -> None:
        _check_ramp(self, "beta_slow", "beta_fast")
        require(
            0 <= self.query_beta < math.inf,
            f"model.rope_scaling.query_beta is {self.query_beta}: it must not be negative.",
        )
        if self.attention_factor is not None:
            positive("model.rope_scaling", self, "attention_factor")

    @property
    def temperature(self) -> float:
        """The factor on sin and cos."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0


@dataclass(frozen=True, kw_only=True)
class LongRope:
    """LongRoPE (Ding et al. 2024): a factor for each pair, one set of them for texts up to the
    context of pretraining, and one for longer ones (Phi-3, Phi-4).

    The length is that of the longest document in a row.

    Raises:
      ConfigError: a number is not above 0.
    """

    kind: Literal["longrope"] = "longrope"
    """Tells the scalings apart in JSON."""
    original_max_seq_len: int = 4096
    """Context of pretraining, in tokens."""
    short_factors: tuple[float, ...] = ()
    """The frequency of each rotated pair is divided by its factor, up to the original context.
    Empty: by 1."""
    long_factors: tuple[float, ...] = ()
    """The same for longer texts."""
    attention_factor: float = 1.0
    """Factor on sin and cos."""

    def __post_init__(self) -> None:
        positive("model.rope_scaling", self, "original_max_seq_len", "attention_factor")
        for name in ("short_factors", "long_factors"):
            for value in getattr(self, name):
                require(
                    0 < value < math.inf,
                    f"model.rope_scaling.{name} has {value}: give finite numbers above 0.",
                )


def _check_factor(scaling: Any) -> None:
    positive("model.rope_scaling", scaling, "factor")
    require(
        scaling.factor >= 1,
        f"model.rope_scaling.factor is {scaling.factor}: it must be 1 or more.",
    )


def _check_ramp(scaling: Llama3Rope | YarnRope, low: str, high: str) -> None:
    owner = "model.rope_scaling"
    positive(owner, scaling, "factor", "original_max_seq_len", low, high)
    _check_factor(scaling)
    least, most = getattr(scaling, low), getattr(scaling, high)
    require(most > least, f"{owner}.{high} is {most}: it must be above {low} = {least}.")
