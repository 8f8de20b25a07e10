"""Rows of the vocabulary that no token has: they pad a model for the hardware."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import ModelConfig
from llm_jax.config.wording import counted
from llm_jax.convert import kept_files
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import model_of
from llm_jax.train.stored import StoredArray

Params = dict[str, Any]


def cut_vocabulary(
    model: ModelConfig, params: Params, tokenizer: Tokenizer, run: Path
) -> tuple[ModelConfig, Params, list[str]]:
    """The model without the rows that pad its vocabulary, and sentences about them.

    An imported model keeps the rows that it had.

    Args:
      params: tree of arrays, on disk or in memory.
      run: the run's folder.
    """
    size = max(tokenizer.vocab_size, kept_files.vocabulary(run))
    spare = model.vocab_size - size
    if spare <= 0:
        return model, params, []

    def cut(leaf: Any, spec: Any) -> Any:
        if "vocab" not in spec.axes:
            return leaf
        axis = spec.axes.index("vocab")
        place = tuple(slice(size) if i == axis else slice(None) for i in range(len(spec.axes)))
        shape = tuple(size if i == axis else n for i, n in enumerate(leaf.shape))

        def read(inner: Any) -> np.ndarray:
            assert inner == ()  # tables are not stacked
            return np.asarray(leaf[place])

        return StoredArray(shape, np.dtype(leaf.dtype), read)

    params = jax.tree.map(cut, params, model_of(model).specs(model))
    note = (
        f"{counted(spare, 'padding row')} of the vocabulary left out, which no token has: "
        f"{size:,} of {model.vocab_size:,} go out"
    )
    return dataclasses.replace(model, vocab_size=size), params, [note]
