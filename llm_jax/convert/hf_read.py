"""A Hugging Face folder as a model to use, without what writes runs, which takes long to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import Architecture, DataConfig, RunConfig
from llm_jax.config.architecture import trained_by
from llm_jax.convert.hf_model import read, read_config_json
from llm_jax.convert.own_tokenizer import require_belongs, require_starts
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.train.finite import require_finite

Params = dict[str, Any]


def read_with(
    folder: Path, tokenizer: Tokenizer, *, compared: bool = False
) -> tuple[Architecture, Params]:
    """`read`, for a model that is to be used with `tokenizer`.

    Raises:
      UserError: as `read` does; or a weight is not a finite number, or the tokenizer does not fit.
    """
    model, params = read(folder, compared=compared)
    require_fits(read_config_json(folder), model, tokenizer)
    require_finite(params, str(folder), "download it again")
    return model, params


def require_fits(raw: dict[str, Any], model: Architecture, tokenizer: Tokenizer) -> None:
    """Raises `UserError` unless the tokenizer belongs to the model of a config.json.

    Args:
      raw: config.json.
    """
    require_belongs(raw, model.vocab_size, tokenizer)
    require_starts(raw, model, tokenizer)


def run_config(model: Architecture, out: Path) -> RunConfig:
    """A run in `out` with the imported architecture, and the defaults of everything else."""
    data = DataConfig(seq_len=min(1024, model.max_seq_len))
    objective = trained_by(model) or "next_token"
    return RunConfig(
        name=out.name, out=str(out), steps=1000, model=model, data=data, objective=objective
    )
