"""Batch size and learning rate from published rules.

Batches are in tokens; N is the number of parameters without embeddings. Batch and learning rate
always come from the same rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from llm_jax.config import OptimConfig, UserError, nearest

REFERENCE_BATCH, REFERENCE_PARAMS = 2**19, 12 * 12 * 768**2 + 768 * 32768
"""nanochat's reference run d12: its batch in tokens, and its parameters (12 blocks and the
unembedding)."""


@dataclass(frozen=True)
class HyperParameters:
    """Tokens per step and peak learning rate, with their source and any warnings."""

    batch_tokens: float
    learning_rate: float
    source: str
    warnings: tuple[str, ...] = ()
    warmup: float = 0.02
    """Share of the steps; at most 2,000 steps."""
    final: float = 0.1
    """Final learning rate, as a fraction of the peak."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """The optimizer that the learning rate is for."""
    b2: float = OptimConfig.b2
    weight_decay: float = OptimConfig.weight_decay


def step_law(params: float, tokens: float, flops: float) -> HyperParameters:
    """lr = 1.79·N^−.713·D^.307, batch = .58·D^.571 (Li et al. 2025, Step Law)."""
    outside = not (6e7 <= params <= 1.1e9 and 2e9 <= tokens <= 1e11)
    return HyperParameters(
        0.58 * tokens**0.571,
        1.79 * params**-0.713 * tokens**0.307,
        "Step Law (Li et al. 2025)",
        ("Step Law was fitted on 60M–1.1B parameters and 2B–100B tokens; this run is outside.",)
        if outside
        else (),
    )


def deepseek(params: float, tokens: float, flops: float) -> HyperParameters:
    """lr = .3118·C^−.1250, batch = .2920·C^.3271 (Bi et al. 2024, eq. 1)."""
    outside = not 1e17 <= flops <= 2e19
    return HyperParameters(
        0.2920 * flops**0.3271,
        0.3118 * flops**-0.1250,
        "DeepSeek LLM (Bi et al. 2024)",
        ("DeepSeek's rule was fitted on 1e17–2e19 FLOPs; this run is outside.",) if outside else (),
    )


def olmo(params: float, tokens: float, flops: float) -> HyperParameters:
    """batch = 160·(N/108M)^(2/3) sequences of 2048, lr = .0047·(N/108M)^(−1/3).

    The ladder rule of OLMo (Bhagia et al. 2024), after Porian et al. 2024.
    """
    scale = params / 108e6
    return HyperParameters(
        160 * 2048 * scale ** (2 / 3),
        0.0047 * scale ** (-1 / 3),
        "OLMo ladder (Bhagia et al. 2024, after Porian et al. 2024)",
    )


def nanochat(params: float, tokens: float, flops: float) -> HyperParameters:
    """batch ∝ D^.383 (Bergsma et al. 2025, Power Lines), lr ∝ √batch/√N as nanochat scales both.

    The exponents and the batch are nanochat's, at 20 tokens per parameter. The reference learning
    rate is OLMo's at that size, because nanochat's own is for the Muon optimizer.
    """
    reference_tokens = 20 * REFERENCE_PARAMS
    batch = REFERENCE_BATCH * (tokens / reference_tokens) ** 0.383
    at_reference = olmo(REFERENCE_PARAMS, reference_tokens, 0.0).learning_rate
    rate = at_reference * math.sqrt(batch / REFERENCE_BATCH) * math.sqrt(REFERENCE_PARAMS / params)
    return HyperParameters(batch, rate, "nanochat's scaling (Power Lines, Bergsma et al. 2025)")


def small(params: float, tokens: float, flops: float) -> HyperParameters:
    """Muon, batch = 1,024 tokens, lr = .005·(N/.8M)^(−1/3), at most .005, for up to 5M parameters.

    The published rules were fitted on models a hundred times larger. Batches this small need a
    slower decay of the second moment, and more weight decay (docs/log.md). Above a width of 128 the
    rate falls as 1/width, since N ∝ width³.
    """
    outside = not 1e4 <= params <= 5e6
    return HyperParameters(
        1024,
        0.005 * min(1.0, (params / 8e5) ** (-1 / 3)),
        "the rule for small models, measured (docs/log.md)",
        ("The rule `small` was measured on models of 10K to 1M parameters; this is outside.",)
        if outside
        else (),
        warmup=0.05,
        final=0.02,
        optimizer="muon",
        b2=0.998,
        weight_decay=0.3,
    )


RULES = {
    "step-law": step_law,
    "deepseek": deepseek,
    "olmo": olmo,
    "nanochat": nanochat,
    "small": small,
}
DEFAULT = "step-law"
SMALL = 5e6
"""Parameters up to which the rule `small` was measured."""
MOST_RATE = step_law(6e7, 1e11, 0.0).learning_rate
"""0.0122, the highest learning rate in the range that a published rule was fitted on."""


def rule_for(params: float) -> str:
    """The rule for a model of `params` non-embedding parameters."""
    return "small" if params <= SMALL else DEFAULT


def recommend(rule: str, params: float, tokens: float, flops: float) -> HyperParameters:
    """Batch and learning rate by `rule`, for N non-embedding parameters, D tokens and C FLOPs.

    Raises:
      UserError: there is no such rule; the sentence names the nearest one.
    """
    if rule not in RULES:
        raise UserError(f"There is no hyper-parameter rule {rule!r}: {nearest(rule, RULES)}")
    found = RULES[rule](params, tokens, flops)
    if found.learning_rate <= MOST_RATE:
        return found
    warning = (
        f"{found.source} gives a learning rate of {found.learning_rate:.3g}, above all that a rule "
        f"was fitted on: {MOST_RATE:.3g} is used."
    )
    return replace(found, learning_rate=MOST_RATE, warnings=(*found.warnings, warning))
