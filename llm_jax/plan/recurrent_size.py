"""The recurrent network of a given size."""

from __future__ import annotations

from typing import Literal, cast

from llm_jax.config import RecurrentConfig
from llm_jax.facts.recurrent_counts import recurrent_parameters
from llm_jax.plan.no_run import NoRun

CELLS = ("lstm", "gru")
"""Families of `ladder` that are recurrent."""
RATE = 4.0
"""Learning rate relative to a Transformer's. On the standard library, 0.28 M parameters of LSTM end
at 5.03 nats with the rule's 0.005, 4.64 with 0.02, 4.63 with 0.04, 4.71 with 0.08."""
LAYERS = 2
UNIT = 4
"""Widths are multiples of it."""


def of_size(family: str, params: float, *, vocab_size: int, seq_len: int) -> RecurrentConfig:
    """Two layers whose width brings all parameters nearest to `params`.

    Raises:
      NoRun: the embedding alone is larger.
    """
    cell = cast(Literal["lstm", "gru"], family)

    def of_width(width: int) -> RecurrentConfig:
        return RecurrentConfig(
            cell=cell,
            vocab_size=vocab_size,
            num_layers=LAYERS,
            d_model=width,
            max_seq_len=seq_len,
        )

    width = UNIT
    while recurrent_parameters(of_width(width + UNIT)) <= params:
        width += UNIT
    if recurrent_parameters(of_width(width)) > params:
        raise NoRun(
            f"No {family} has about {params:.3g} parameters with a vocabulary of {vocab_size:,}",
            "raise the budget, or give a smaller vocabulary.",
            "raise",
        )
    near = (of_width(width), of_width(width + UNIT))
    return min(near, key=lambda model: abs(recurrent_parameters(model) - params))
