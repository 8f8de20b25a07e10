"""Starts a run from the weights of another one, with its own optimizer, data and schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import (
    ConfigError,
    EncoderConfig,
    ModelConfig,
    RunConfig,
    layers_of,
    read_config,
    to_dict,
)
from llm_jax.data.tokenizers import Tokenizer, has_tokenizer
from llm_jax.models.protocol import model_of
from llm_jax.runs.places import folder_and_step
from llm_jax.train.damage import saved_steps
from llm_jax.train.guard import fresh_guard
from llm_jax.train.load import load_run
from llm_jax.train.precision import as_matrices
from llm_jax.train.run_folder import changed_fields, in_words
from llm_jax.train.state import State, fresh_optimizer

LONGER = ("model.max_seq_len", "model.rope_theta", "model.rope_scaling")
"""Beginnings of the fields that a stage with longer sequences changes. Without a learned table of
positions, the weights fit all the same."""


def run_named(flag: str, place: str) -> tuple[Path, int, RunConfig]:
    """The folder, the checkpoint and the config of the run that `place` names.

    Args:
      flag: that the user named it with.

    Raises:
      ConfigError: there is no such run or checkpoint.
    """
    folder, step = folder_and_step(place)
    is_run = (folder / "run.json").is_file() and has_tokenizer(folder)
    steps = saved_steps(folder / "checkpoints") if is_run else []
    if not steps:
        raise ConfigError(
            f"{flag} is {place!r}, which is not a run with a checkpoint: give the folder of a run, "
            "or RUN@STEP. `llm-jax import` makes a run of a Hugging Face folder."
        )
    if step not in (None, *steps):
        raise ConfigError(
            f"{flag} is {place!r}, but the run has no checkpoint of step {step}: it has "
            f"{', '.join(map(str, reversed(steps)))}."
        )
    config = read_config(folder / "run.json", RunConfig)
    return folder, steps[0] if step is None else step, config


def check_fits(flag: str, place: str, folder: Path, config: RunConfig, sha256: str) -> None:
    """Raises `ConfigError` unless the run in `folder` has the architecture of `config`, and the
    tokenizer `sha256`. What `LONGER` names may differ."""
    parent = read_config(folder / "run.json", RunConfig)
    changed = changed_fields(to_dict(parent.model), to_dict(config.model), "model")
    has_table = isinstance(config.model, ModelConfig | EncoderConfig)
    if not (has_table and layers_of(config.model).positions == "learned"):
        changed = {name: pair for name, pair in changed.items() if not name.startswith(LONGER)}
    if changed:
        raise ConfigError(
            f"{flag} is {place!r}, a run of another architecture ({in_words(changed)}): its "
            "weights do not fit."
        )
    if Tokenizer.load(folder).sha256 != sha256:
        raise ConfigError(
            f"{flag} is {place!r}, a run with another tokenizer: build the dataset with "
            f"--tokenizer {folder}."
        )


def parent_of(init: str, config: RunConfig, sha256: str) -> dict[str, Any]:
    """The history's record of the run that `init` names: `run`, `name` and `step`; raises as
    `run_named` and `check_fits` do."""
    folder, step, parent = run_named("--init", init)
    check_fits("--init", init, folder, config, sha256)
    return {"run": str(folder), "name": parent.name, "step": step}


def inherited_state(config: RunConfig, abstract: State, parent: dict[str, Any]) -> State:
    """The state before step 1 with the weights of `parent`, sharded as `abstract` says."""
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    params = load_run(
        parent["run"], parent["step"], where=where["params"], trust_code=True, shared=True
    ).params  # of the architecture in `config`, which runs this code too
    specs = model_of(config.model).specs(config.model)
    params = as_matrices(params, config.optim.param_dtype, specs)
    host = {"guard": fresh_guard(), "step": np.int32(0)}
    fresh = jax.tree.map(
        lambda leaf, sharding: jax.device_put(np.asarray(leaf), sharding),
        host,
        {name: where[name] for name in host},
    )
    return {"params": params, "opt": fresh_optimizer(config, abstract, params), **fresh}
