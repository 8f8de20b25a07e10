"""Muon (Jordan et al. 2024): the matrices follow their orthogonalised momentum, the rest AdamW."""

from __future__ import annotations

import math
from typing import Any

import jax
import optax
import optax.contrib

from llm_jax.config import OptimConfig
from llm_jax.models.common.parameter import Spec
from llm_jax.train.optimizers.common import adam, decayed


def muon(optim: OptimConfig, rate: optax.Schedule, specs: Any) -> optax.GradientTransformation:
    labels = jax.tree.map(lambda spec: "matrices" if spec.role == "matrix" else "rest", specs)
    numbers = jax.tree.map(lambda spec: muon_axes(spec) or optax.MaskedNode(), specs)
    orthogonal = optax.chain(
        optax.contrib.scale_by_muon(weight_dimension_numbers=numbers),
        optax.stateless(lambda updates, _: jax.tree.map(_like_adam, updates, numbers)),
    )
    direction = optax.partition({"matrices": orthogonal, "rest": adam(optim)}, labels)
    return decayed(direction, optim, rate, specs)


def muon_axes(spec: Spec) -> optax.contrib.MuonDimensionNumbers | None:
    """(input axes, output axes) of a matrix in a block; None for all other parameters.

    Each layer and each expert is a separate matrix. All heads of a projection are one matrix.
    """
    if spec.role != "matrix":
        return None
    axes = spec.axes
    width = [i for i, name in enumerate(axes) if name in ("embed", "expert_embed")]
    other = tuple(
        i for i, name in enumerate(axes) if name not in ("layers", "experts") and i not in width
    )
    sides = (tuple(width), other) if width[0] < other[0] else (other, tuple(width))
    return optax.contrib.MuonDimensionNumbers(*sides)


def _like_adam(update: jax.Array, numbers: optax.contrib.MuonDimensionNumbers) -> jax.Array:
    """Scales to a root mean square of 0.2, as AdamW's updates have (Liu et al. 2025, eq. 4)."""
    sides = [math.prod(update.shape[i] for i in axes) for axes in numbers]
    return 0.2 * math.sqrt(max(sides)) * update
