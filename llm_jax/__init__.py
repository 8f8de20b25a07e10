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
        ConfigError,
        LanguageModel,
        ModelConfig,
        Planned,
        RunConfig,
        Tokenizer,
        UserError,
        load_config,
        load_model,
        open_dataset,
        plan_run,
        train_run,
    )

__version__ = "0.1.0"

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
    if name not in __all__:
        raise AttributeError(f"module 'llm_jax' has no attribute {name!r}")
    return getattr(importlib.import_module("llm_jax.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
