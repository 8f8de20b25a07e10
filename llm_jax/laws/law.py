"""Scaling laws: the loss of N parameters trained on D tokens, and the best N for C FLOPs.

Units: N parameters, D tokens, C FLOPs with C = 6·N·D, loss in nats per token. The exponents and
coefficients of a law come from one source and are in one object, so they cannot be mixed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np

Counts = Literal["all", "non-embedding"]


@dataclass(frozen=True)
class Fitted:
    """The range of a law's fit: (smallest, largest) FLOPs, parameters and tokens."""

    flops: tuple[float, float]
    params: tuple[float, float]
    tokens: tuple[float, float]

    def decades_outside(self, params: float, tokens: float) -> float:
        """Decades of compute between this point and the fitted range; 0 inside the range."""
        low, high = self.flops
        flops = 6 * params * tokens
        return max(0.0, math.log10(low / flops), math.log10(flops / high))

    def warnings(self, name: str, params: float, tokens: float) -> list[str]:
        """One sentence for each quantity outside the fitted range."""
        values = {
            "FLOPs": (6 * params * tokens, self.flops),
            "parameters": (params, self.params),
            "tokens": (tokens, self.tokens),
        }
        return [
            f"{value:.3g} {what} are outside the range that {name} was fitted on "
            f"({low:.2g} to {high:.2g}): the interval is widened."
            for what, (value, (low, high)) in values.items()
            if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9)
        ]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the runs of a fit were trained. The law's losses hold only for such runs."""

    rule: str
    """Rule for batch, learning rate and schedule, as in `hyperparameters.RULES`."""
    family: str
    seq_len: int
    vocab_size: int
    text: str
    """Name of the text, such as `Python 3.11.7 standard library`."""
    fingerprint: str
    """Fingerprint of the dataset."""


@dataclass(frozen=True)
class Optimum:
    """The compute-optimal point of a budget. `loss` is None if the law predicts no loss."""

    params: float
    tokens: float
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class Law(ABC):
    """A scaling law: its source, its fitted range, and which parameters its N counts."""

    name: str
    source: str
    counts: Counts
    fitted: Fitted

    @abstractmethod
    def loss(self, params: float, tokens: float) -> float | None:
        """Predicted loss in nats per token, or None if the law predicts only sizes."""

    @abstractmethod
    def optimum(self, flops: float) -> Optimum:
        """The best split of `flops` into parameters and tokens."""

    def half_width(self, params: float, tokens: float) -> float:
        """Half of the 90% interval in nats per token, inside the fitted range."""
        raise NotImplementedError(f"{self.name} predicts no loss")

    def interval(self, params: float, tokens: float) -> tuple[float, float] | None:
        """(low, high) around the loss. Each decade of extrapolation adds the original width; low
        is never below 0. None if the law predicts no loss.

        The growth outside the fitted range is a cautious rule, not statistics: the data of a fit
        do not tell how it fails outside its range.
        """
        loss = self.loss(params, tokens)
        if loss is None:
            return None
        half = self.half_width(params, tokens)
        half *= 1 + self.fitted.decades_outside(params, tokens)
        return max(0.0, loss - half), loss + half

    def warnings(self, params: float, tokens: float) -> list[str]:
        """Sentences about this point that a reader must know."""
        return self.fitted.warnings(self.name, params, tokens)


@dataclass(frozen=True, kw_only=True)
class Parametric(Law):
    """L(N, D) = E + A/N^α + B/D^β (Hoffmann et al. 2022, eq. 10)."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    half_width_nats: float = 0.05
    """Half of the 90% interval inside the fitted range, for laws without bootstrap draws. The
    default is 1.645 × 0.03, the standard error of E in Besiroglu et al. 2024 (table 1)."""
    experts: int = 1
    """Experts of a layer relative to those that a token uses. 1: fitted on dense models."""
    draws: tuple[tuple[float, ...], ...] = ()
    """Bootstrap draws (E, A, B, α, β) of a fit; they keep the correlations of the five numbers."""
    residual: float = 0.0
    """Standard deviation of the fit's residuals in ln L."""
    spread: float = 0.0
    """Standard deviation of ln L of later runs around the law (`later_runs.py`)."""
    recipe: Recipe | None = None
    """None if the runs were trained in different ways, or if it is not known how."""

    @property
    def a(self) -> float:
        """Exponent of N_opt ∝ C^a."""
        return self.beta / (self.alpha + self.beta)

    @property
    def G(self) -> float:
        """N_opt = G·(C/6)^a (Hoffmann et al. 2022, eq. 4)."""
        ratio = self.alpha * self.A / (self.beta * self.B)
        return ratio ** (1 / (self.alpha + self.beta))

    def loss(self, params: float, tokens: float) -> float:
        return self.E + self.A * params**-self.alpha + self.B * tokens**-self.beta

    def optimum(self, flops: float) -> Optimum:
        params = self.G * (flops / 6) ** self.a
        tokens = flops / 6 / params
        return Optimum(params, tokens, self.loss(params, tokens))

    def params_for_tokens(self, tokens: float) -> float:
        """The N for which `tokens` is the compute-optimal D."""
        return self.G * (tokens * self.G) ** (self.a / (1 - self.a))

    def half_width(self, params: float, tokens: float) -> float:
        if not self.draws:
            return self.half_width_nats
        E, A, B, alpha, beta = np.asarray(self.draws).T
        losses = E + A * params**-alpha + B * tokens**-beta
        low, high = np.quantile(losses, [0.05, 0.95])
        noise = 1.645 * math.hypot(self.residual, self.spread) * self.loss(params, tokens)
        return float(np.hypot((high - low) / 2, noise))


@dataclass(frozen=True, kw_only=True)
class PowerLaw(Law):
    """N_opt = k·C^a and D_opt = C/(6·N_opt). It predicts sizes, not losses."""

    k: float
    a: float
    notes: tuple[str, ...] = ()

    def loss(self, params: float, tokens: float) -> None:
        return None

    def optimum(self, flops: float) -> Optimum:
        params = self.k * flops**self.a
        return Optimum(params, flops / 6 / params, None)

    def warnings(self, params: float, tokens: float) -> list[str]:
        return [*super().warnings(params, tokens), *self.notes]
