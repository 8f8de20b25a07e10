"""Published scaling laws by name, each with its source and the range of its fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm_jax.config import UserError, nearest
from llm_jax.laws.law import Fitted, Law, Optimum, Parametric, PowerLaw


def power_law_from_rows(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(k, a) of N = k·C^a through published optima (N, C), by least squares in logarithms."""
    params, flops = np.log(np.asarray(rows)).T
    a, log_k = np.polyfit(flops, params, 1)
    return float(np.exp(log_k)), float(a)


PF_DAY = 8.64e19
"""FLOPs in a petaflop-day."""


@dataclass(frozen=True, kw_only=True)
class Kaplan(Law):
    """Kaplan et al. 2020. N excludes embeddings; their compute is C_min in PF-days.

    The joint law has its own constants (table 2), which differ from those of the single laws
    (eqs. 1.1–1.3). The optimum is that of eq. 1.7 and table 6. The three agree only approximately.
    """

    def loss(self, params: float, tokens: float) -> float:
        """Joint law, eq. 1.5: [(Nc/N)^(αN/αD) + Dc/D]^αD with αN = .076, αD = .103."""
        return float(((6.4e13 / params) ** (0.076 / 0.103) + 1.8e13 / tokens) ** 0.103)

    def loss_of_compute(self, flops: float) -> float:
        """Eq. 1.3: C_min spent optimally."""
        return (3.1e8 * PF_DAY / flops) ** 0.050

    def optimum(self, flops: float) -> Optimum:
        """N = 1.3e9·C^.73 (table 6); D = C/(6·N), as for training far below the critical batch."""
        params = 1.3e9 * (flops / PF_DAY) ** 0.73
        return Optimum(params, flops / 6 / params, self.loss_of_compute(flops))

    def half_width(self, params: float, tokens: float) -> float:
        """The difference between the law's joint and compute forms, at least 0.05 nats."""
        gap = self.loss(params, tokens) - self.loss_of_compute(6 * params * tokens)
        return max(0.05, abs(gap))


HOFFMANN = Fitted(flops=(6e18, 3e21), params=(44e6, 16.2e9), tokens=(5e9, 500e9))
# Rows (N, C) of Hoffmann et al. 2022: approach 1 from table 3, approach 2 from table A3.
APPROACH_1_ROWS = (
    (400e6, 1.92e19), (1e9, 1.21e20), (10e9, 1.23e22), (67e9, 5.76e23), (175e9, 3.85e24),
    (280e9, 9.90e24), (520e9, 3.43e25), (1e12, 1.27e26), (10e12, 1.30e28),
)  # fmt: skip
APPROACH_2_ROWS = (
    (400e6, 1.84e19), (1e9, 1.20e20), (10e9, 1.32e22), (67e9, 6.88e23), (175e9, 4.54e24),
    (280e9, 1.18e25), (520e9, 4.19e25), (1e12, 1.59e26), (10e12, 1.75e28),
)  # fmt: skip


def _parametric(name: str, source: str, E: float, A: float, B: float, al: float, be: float) -> Law:
    return Parametric(
        name=name, source=source, counts="all", fitted=HOFFMANN, E=E, A=A, B=B, alpha=al, beta=be
    )


def _approach(number: int, table: str, rows: Sequence[tuple[float, float]]) -> Law:
    k, a = power_law_from_rows(rows)
    return PowerLaw(
        name=f"hoffmann-approach{number}",
        source=f"Hoffmann et al. 2022, approach {number}: power law through the published optima "
        f"of {table} (the paper prints only the exponent)",
        counts="all",
        fitted=HOFFMANN,
        k=k,
        a=a,
    )


def _llama3(flops_exponent: float, coefficient: float) -> Law:
    """D = A·C^α turned into N = C/(6·D)."""
    return PowerLaw(
        name="llama3",
        source="Llama 3 (Grattafiori et al. 2024), section 3.2.1: D = A·C^α with (A, α) of the "
        "figure's legend (.299, .537), which gives the 16.55T tokens of the text",
        counts="all",
        fitted=Fitted(flops=(6e18, 1e22), params=(40e6, 16e9), tokens=(1e9, 1e12)),
        k=1 / (6 * coefficient),
        a=1 - flops_exponent,
        notes=(
            "llama3's exponent is sensitive: at 3.8e25 FLOPs, the (A, α) = (.29, .53) of its text "
            "gives a third fewer tokens than the (.299, .537) of its figure.",
        ),
    )


def _deepseek() -> Law:
    return PowerLaw(
        name="deepseek",
        source="DeepSeek LLM (Bi et al. 2024), eq. 4: M = .1715·C^.5243 non-embedding FLOPs per "
        "token; parameters are M/6",
        counts="non-embedding",
        fitted=Fitted(flops=(1e17, 3e20), params=(23e6, 1.6e9), tokens=(7e8, 3.3e10)),
        k=0.1715 / 6,
        a=0.5243,
    )


def joint_moe(experts: int) -> Parametric:
    """The law of models with `experts` experts of which a token uses one; 1: dense models.

    Ludziejewski et al. 2025 (Joint MoE scaling laws), eqs. 4 and 6, table 3: for a fixed number of
    experts, the law is that of Hoffmann et al. with coefficients that depend on it (table 4).
    """
    start, most = 2.0732, 290.4521
    saturated = experts - 1 + 1 / (1 / start - 1 / most)
    log_E = -math.log(1 / saturated + 1 / most)
    return Parametric(
        name=f"ludziejewski-2025-e{experts}",
        source=f"Ludziejewski et al. 2025, eq. 6 and table 3, for {experts} times as many experts "
        "as a token uses",
        counts="all",
        fitted=Fitted(flops=(2.4e17, 5.4e20), params=(79e6, 2.7e9), tokens=(5e8, 8e10)),
        E=1.3637,
        A=35.91 * math.exp(-0.2285 * log_E),
        B=35.98 * math.exp(0.5529 * log_E),
        alpha=0.1889 - 0.0098 * log_E,
        beta=0.1775 + 0.0259 * log_E,
        experts=experts,
    )


_TEX = "the paper's TeX source: ln A = 6.0073404, ln B = 6.0179186, ln E = .5267228"
_PRESETS: tuple[Law, ...] = (
    _parametric(
        "besiroglu-2024",
        "Besiroglu et al. 2024, replication of Hoffmann et al. 2022",
        *(1.8172, 482.01, 2085.43, 0.3478, 0.3658),
    ),
    _parametric(
        "hoffmann-tex",
        f"Hoffmann et al. 2022, approach 3; {_TEX}",
        *(math.exp(0.5267228), math.exp(6.0073404), math.exp(6.0179186), 0.33917084, 0.2849083),
    ),
    _parametric(
        "hoffmann-rounded",
        "Hoffmann et al. 2022, approach 3, rounded as printed in eq. 10",
        *(1.69, 406.4, 410.7, 0.34, 0.28),
    ),
    _parametric(
        "sardana",
        "Sardana & Frankle 2023, the coefficients of Hoffmann et al. 2022 as they use them",
        *(1.69, 406.4, 410.7, 0.336, 0.283),
    ),
    _parametric(
        "muennighoff-c4",
        "Muennighoff et al. 2023, appendix A, single-epoch runs on C4",
        *(math.exp(0.6254804), math.exp(6.255414), math.exp(7.3049974), 0.3526596, 0.3526596),
    ),
    _approach(1, "table 3", APPROACH_1_ROWS),
    _approach(2, "table A3", APPROACH_2_ROWS),
    Kaplan(
        name="kaplan",
        source="Kaplan et al. 2020, tables 2, 5 and 6",
        counts="non-embedding",
        fitted=Fitted(flops=(1e14, 8.64e20), params=(768, 1.5e9), tokens=(22e6, 23e9)),
    ),
    _llama3(0.537, 0.299),
    _deepseek(),
    *(joint_moe(experts) for experts in (1, 2, 4, 8, 16, 32)),
)
PRESETS: dict[str, Law] = {law.name: law for law in _PRESETS}
DEFAULTS = {"moe": "ludziejewski-2025-e4"}
"""Family → the law that it is planned by; all others by `DEFAULT`. 2 of 8 experts: 4 times."""
DEFAULT = "besiroglu-2024"


def preset(name: str) -> Law:
    """The law with that name.

    Raises:
      UserError: there is none; the sentence names the nearest one.
    """
    if name not in PRESETS:
        raise UserError(f"There is no scaling law {name!r}: {nearest(name, PRESETS)}")
    return PRESETS[name]
