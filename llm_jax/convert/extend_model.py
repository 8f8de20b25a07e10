"""A model whose tokenizer has got more pieces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import ModelConfig, RunConfig, UserError
from llm_jax.config.run import VOCAB_MULTIPLE
from llm_jax.convert.hf_export import refuse_nonempty
from llm_jax.convert.hf_import import write_run
from llm_jax.data.tokenizers.extend import Extended
from llm_jax.models.common.parameter import Spec
from llm_jax.models.protocol import model_of
from llm_jax.runs.files import new_folder
from llm_jax.runs.history import append, beginning
from llm_jax.runs.imported import inherit
from llm_jax.train.load import Run

Params = dict[str, Any]


def write_extended(run: Run, source: Path, out: Path, extended: Extended) -> RunConfig:
    """Creates a run folder whose checkpoint 0 holds the weights of `run`, with rows for the new
    pieces.

    Raises:
      UserError: `out` is not empty.
    """
    refuse_nonempty(out)
    model, params = with_rows(run.config.model, run.params, extended)
    config = dataclasses.replace(run.config, name=out.name, out=str(out), model=model)
    with new_folder(out) as made:
        write_run(made, config, params, extended.tokenizer)
        inherit(source, made)
        parent = {"run": str(source.absolute()), "name": run.config.name, "step": run.step}
        append(made, beginning(config, None, parent).entries[0])
    return config


def with_rows(model: ModelConfig, params: Params, extended: Extended) -> tuple[ModelConfig, Params]:
    """The architecture and parameters for the extended vocabulary.

    The row of a new piece is the mean of the rows of the pieces that it replaces (Yao et al. 2021,
    AdaLM; so did Swallow, Fujii et al. 2024), in the embedding, the unembedding and its bias.

    Args:
      params: float32 tree of the model's `init`.
    """
    size = max(model.vocab_size, extended.tokenizer.vocab_size)
    if model.vocab_size % VOCAB_MULTIPLE == 0:
        size = -(-size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    first = extended.tokenizer.vocab_size - len(extended.replaced)
    if first > model.vocab_size:
        raise UserError("The model has fewer rows than its tokenizer has pieces.")

    def grown(leaf: Any, spec: Spec) -> Any:
        if "vocab" not in spec.axes:
            return leaf
        rows = np.moveaxis(np.asarray(leaf), spec.axes.index("vocab"), 0)
        made = np.zeros((size, *rows.shape[1:]), rows.dtype)
        made[: len(rows)] = rows
        for number, replaced in enumerate(extended.replaced, first):
            made[number] = rows[replaced].mean(axis=0)
        return np.moveaxis(made, 0, spec.axes.index("vocab"))

    specs = model_of(model).specs(model)
    params = jax.tree.map(grown, params, specs)
    return dataclasses.replace(model, vocab_size=size), params
