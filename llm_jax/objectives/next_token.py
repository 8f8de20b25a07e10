"""Pretraining: the mean -log p of each next token, and a z-loss. In `spans`, those of a target."""

from __future__ import annotations

from typing import Any

import jax

from llm_jax.config import RunConfig, layers_of
from llm_jax.models.protocol import Batch, context_of, model_of
from llm_jax.objectives.cross_entropy import cross_entropy
from llm_jax.objectives.objective import Loss, Objective


def loss(params: Any, batch: Batch, weight: jax.Array, config: RunConfig) -> Loss:
    """The targets' losses and z-losses, times `weight` (`Objective.loss`)."""
    model, family = config.model, model_of(config.model)
    hidden = family.forward(params, batch, model, context_of(config))
    total, nats = cross_entropy(
        hidden.x_BTD,
        family.unembedding(params, model),
        batch["targets"],
        weight,
        layers_of(model).logit_softcap,
        config.compute.loss_chunk,
        config.optim.z_loss,
        params.get("unembed_bias"),
        config.optim.label_smoothing,
    )
    return Loss(total, nats, hidden.routing)


NEXT_TOKEN = Objective(loss)
