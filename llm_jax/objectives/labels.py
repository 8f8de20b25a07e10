"""-log p of labels: of a text (`classify`), of words (`tag`), of an answer's ends (`answer`).

As BERT was fine-tuned (Devlin et al. 2019, section 4): a softmax over the labels of the first
position or of each word's first token, or over the positions for begin and end. Rows are examples,
padded to one length; padding sees and is seen by nothing else.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import EncoderConfig, RunConfig
from llm_jax.data.batch import TOKENS, Array, Rows
from llm_jax.models.protocol import Batch, Context, context_of, model_of
from llm_jax.objectives.figures import answer_figures, classify_figures, tag_figures
from llm_jax.objectives.objective import Loss, Objective

ROW = Array("int32", ("batch",))


def classify(config: RunConfig) -> Objective:
    """The objective of a run; `targets` (B,) are numbers of labels."""
    return Objective(
        loss,
        text_arrays(config) | {"targets": ROW},
        prepare=seen,
        of_text=False,
        examples="classify",
        outputs=_likeliest,
        figures=classify_figures,
    )


def tag(config: RunConfig) -> Objective:
    """The objective of a run; `targets` (B, T) are numbers of labels at first tokens of words."""
    return Objective(
        loss,
        text_arrays(config) | {"targets": TOKENS},
        prepare=seen,
        of_text=False,
        examples="tag",
        outputs=_likeliest,
        figures=tag_figures,
    )


def answer(config: RunConfig) -> Objective:
    """The objective of a run; `targets` (B, 2) are the first and the last token of the answer, both
    0 if there is none. `size` and `second` are the row's tokens and where its context begins."""
    places = Array("int32", ("batch", None), 2)
    return Objective(
        loss,
        text_arrays(config) | {"targets": places, "size": ROW, "second": ROW},
        prepare=seen,
        of_text=False,
        examples="answer",
        outputs=_positions,
        figures=answer_figures,
    )


def text_arrays(config: RunConfig, name: str = "") -> dict[str, Array]:
    """The arrays of rows of text; `types` if the model has more than one."""
    names = ["inputs", "segments", "positions"]
    if isinstance(config.model, EncoderConfig) and config.model.types > 1:
        names.append("types")
    return {f"{name}{one}": TOKENS for one in names}


def seen(rows: Rows, numbers: np.ndarray | None = None, name: str = "") -> Rows:
    """`rows` with what a forward pass needs: `segments` (0 at padding), `positions`, `types`."""
    inputs, size = rows[f"{name}inputs"], rows[f"{name}size"]
    column = np.broadcast_to(np.arange(inputs.shape[1], dtype=np.int32), inputs.shape)
    inside = column < size[:, None]
    second = rows.get("second", size)[:, None] if not name else size[:, None]
    return rows | {
        f"{name}segments": inside.astype(np.int32),
        f"{name}positions": np.ascontiguousarray(column),
        f"{name}types": (inside & (column >= second)).astype(np.int32),
    }


def label_logits(params: Any, batch: Batch, model: Any, context: Context) -> jax.Array:
    """float32 logits: (B, C), (B, T, C), or (B, 2, T) of begin and end, -inf at padding."""
    family = model_of(model)
    hidden = family.forward(params, batch, model, context)
    logits: jax.Array = family.label_outputs(hidden.x_BTD, params, model)
    if model.head == "answer":
        inside = (batch["segments"] > 0)[:, None]
        logits = jnp.where(inside, logits.swapaxes(1, 2), -jnp.inf)
    return logits


def loss(params: Any, batch: Batch, weight: jax.Array, config: RunConfig) -> Loss:
    """-log p of all targets, times `weight` (`Objective.loss`)."""
    logits = label_logits(params, batch, config.model, context_of(config))
    total = weight * summed_loss(logits, batch["targets"])
    return Loss(total, jax.lax.stop_gradient(total))


def summed_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Sum of -log p of `targets` (…), of which negative ones are ignored; logits (…, C)."""
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(targets >= 0, picked, 0.0))


def _likeliest(params: Any, batch: Batch, config: RunConfig) -> dict[str, jax.Array]:
    logits = label_logits(params, batch, config.model, context_of(config))
    return {"targets": batch["targets"], "predicted": jnp.argmax(logits, axis=-1)}


def _positions(params: Any, batch: Batch, config: RunConfig) -> dict[str, jax.Array]:
    logits = label_logits(params, batch, config.model, context_of(config))
    return {"logits": logits} | {name: batch[name] for name in ("targets", "size", "second")}
