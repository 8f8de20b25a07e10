"""llm_jax turns a compute budget into a pretrained language model.

`import llm_jax as lj` gives the public API; docs/notebook.md shows it:

  lj.plan_run(usd=1000, chip="v5e")    a budget to a run and its predicted loss
  lj.open_dataset("data/mine")         a dataset; `.batches(...)` its batches
  lj.train_run(run, callback=...)      trains or resumes a run
  lj.load_model("runs/first")          a run or a Hugging Face folder: logits, loss, generate
  lj.load_config("quickstart")         a recipe, a run.json, or the config of a run

Nothing else is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_jax.api import (
        LanguageModel,
        Planned,
        load_config,
        load_model,
        open_dataset,
        plan_run,
        train_run,
    )
    from llm_jax.config import ConfigError, ModelConfig, RunConfig, UserError
    from llm_jax.data.tokenizer import Tokenizer

__version__ = "0.1.0"

_API = "LanguageModel Planned load_config load_model open_dataset plan_run train_run"
_HOMES = {
    "llm_jax.api": _API.split(),
    "llm_jax.config": ["ConfigError", "ModelConfig", "RunConfig", "UserError"],
    "llm_jax.data.tokenizer": ["Tokenizer"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ConfigError",
    "LanguageModel",
    "ModelConfig",
    "Planned",
    "RunConfig",
    "Tokenizer",
    "UserError",
    "load_config",
    "load_model",
    "open_dataset",
    "plan_run",
    "train_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'llm_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
