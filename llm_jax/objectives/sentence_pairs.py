"""Sentence embeddings: vectors of texts that are near if the texts mean the same.

A text's vector is the mean of its last hidden states. Pairs with scores are trained by the squared
difference of cosine and score (Reimers and Gurevych 2019). Pairs without are positives: each first
text must find its second among all of the micro-batch, -log softmax of cosines / 0.05 (Henderson et
al. 2017; van den Oord et al. 2018; the temperature of Gao et al. 2021).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import RunConfig, require
from llm_jax.data.batch import Array, Rows
from llm_jax.models.protocol import Batch, Context, context_of, model_of
from llm_jax.objectives.figures import pair_figures
from llm_jax.objectives.labels import ROW, seen, text_arrays
from llm_jax.objectives.objective import Loss, Objective
from llm_jax.parallel.mesh import constrain

TEMPERATURE = 0.05
OTHER = "other_"


def embed(config: RunConfig) -> Objective:
    """The objective of a run. A row has two texts; `targets` (B,) are 0, or -1 for padding, and
    `scores` (B,) NaN for pairs without one."""
    arrays = text_arrays(config) | text_arrays(config, OTHER)
    micro = config.data.batch_size // config.compute.accumulate

    def both(rows: Rows, numbers: np.ndarray) -> Rows:
        require(
            micro > 1 or not np.isnan(rows["scores"]).any(),
            "A micro-batch has one pair (data.batch_size / compute.accumulate), so there is no "
            "other text to tell it from: give it two or more.",
        )
        return seen(seen(rows), name=OTHER)

    return Objective(
        loss,
        arrays | {"targets": ROW, "scores": Array("float32", ("batch",))},
        prepare=both,
        of_text=False,
        examples="embed",
        outputs=_vectors,
        figures=pair_figures,
    )


def loss(params: Any, batch: Batch, weight: jax.Array, config: RunConfig) -> Loss:
    """The loss of all pairs, times `weight` (`Objective.loss`)."""
    a_BD, b_BD = pair_vectors(params, batch, config.model, context_of(config))
    there_B, scored_B = batch["targets"] >= 0, ~jnp.isnan(batch["scores"])
    score_B = jnp.where(scored_B, batch["scores"], 0.0)
    logits_BB = jnp.where(there_B, a_BD @ b_BD.T / TEMPERATURE, -jnp.inf)
    logits_BB = jnp.where(there_B[:, None], logits_BB, 0.0)  # of padding, finite gradients
    found_B = -jnp.diagonal(jax.nn.log_softmax(logits_BB))
    each_B = jnp.where(scored_B, (jnp.sum(a_BD * b_BD, axis=1) - score_B) ** 2, found_B)
    total = weight * jnp.sum(jnp.where(there_B, each_B, 0.0))
    return Loss(total, jax.lax.stop_gradient(total))


def pair_vectors(
    params: Any, batch: Batch, model: Any, context: Context
) -> tuple[jax.Array, jax.Array]:
    """float32 unit vectors (B, D) of the first and of the second texts."""
    names = [name for name in ("inputs", "segments", "positions", "types") if name in batch]
    B, T = batch["inputs"].shape

    def together(name: str) -> jax.Array:
        # Side by side, so that each device keeps the rows that it has.
        both = jnp.stack([batch[name], batch[f"{OTHER}{name}"]], axis=1).reshape(2 * B, T)
        return constrain(both, "batch", "length")

    vectors = mean_vectors(params, {name: together(name) for name in names}, model, context)
    pairs = unit(vectors).reshape(B, 2, -1)
    return pairs[:, 0], pairs[:, 1]


def mean_vectors(params: Any, batch: Batch, model: Any, context: Context) -> jax.Array:
    """float32 means (B, D) of the last hidden states of each row, without padding."""
    x_BTD = model_of(model).forward(params, batch, model, context).x_BTD.astype(jnp.float32)
    inside_BT1 = (batch["segments"] > 0)[..., None]
    count_B1 = jnp.maximum(jnp.sum(inside_BT1, axis=1), 1)
    return jnp.sum(jnp.where(inside_BT1, x_BTD, 0.0), axis=1) / count_B1


def unit(x: jax.Array) -> jax.Array:
    """Vectors (…, D) of length 1."""
    return x / jnp.maximum(jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True)), 1e-12)


def _vectors(params: Any, batch: Batch, config: RunConfig) -> dict[str, jax.Array]:
    a_BD, b_BD = pair_vectors(params, batch, config.model, context_of(config))
    return {"a": a_BD, "b": b_BD, "targets": batch["targets"], "scores": batch["scores"]}
