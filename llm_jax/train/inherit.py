"""Starts a run from the weights of another one, with its own optimizer, data and schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import ConfigError, RunConfig, from_json, to_dict
from llm_jax.data.tokenizers import Tokenizer, has_tokenizer
from llm_jax.models.protocol import model_of
from llm_jax.train.checkpoint import saved_steps
from llm_jax.train.guard import fresh_guard
from llm_jax.train.load import load_run
from llm_jax.train.precision import as_matrices
from llm_jax.train.run_folder import changed_fields, in_words
from llm_jax.train.state import State, fresh_optimizer

LONGER = ("model.max_seq_len", "model.rope_theta", "model.rope_scaling")
"""Beginnings of the fields that a stage with longer sequences changes. With rotary positions, the
weights fit all the same."""


def folder_and_step(init_from: str) -> tuple[Path, int | None]:
    """The run folder and the step that `RUN` or `RUN/checkpoints/STEP` name; None: the newest."""
    path = Path(init_from).absolute()
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None


def parent_of(init_from: str, config: RunConfig, tokenizer_sha256: str) -> dict[str, Any]:
    """The history's record of the run that `init_from` names: `run`, `name` and `step`.

    Raises:
      ConfigError: there is no such run or checkpoint, or its architecture or tokenizer differs.
        What `LONGER` names may differ.
    """
    folder, step = folder_and_step(init_from)
    is_run = (folder / "run.json").is_file() and has_tokenizer(folder)
    steps = saved_steps(folder / "checkpoints") if is_run else []
    if not steps or step not in (None, *steps):
        raise ConfigError(
            f"--init-from is {init_from!r}, which is not a run with a checkpoint: give the folder "
            "of a run, or one of its checkpoints/STEP."
        )
    parent = from_json((folder / "run.json").read_text(encoding="utf-8"), RunConfig)
    changed = changed_fields(to_dict(parent.model), to_dict(config.model), "model")
    if config.model.positions == "rope":
        changed = {name: pair for name, pair in changed.items() if not name.startswith(LONGER)}
    if changed:
        raise ConfigError(
            f"--init-from is {init_from!r}, a run of another architecture ({in_words(changed)}): "
            "its weights do not fit."
        )
    if Tokenizer.load(folder).sha256 != tokenizer_sha256:
        raise ConfigError(
            f"--init-from is {init_from!r}, a run with another tokenizer: build the dataset with "
            f"--tokenizer {folder}."
        )
    return {
        "run": str(folder),
        "name": parent.name,
        "step": steps[0] if step is None else step,
    }


def inherited_state(config: RunConfig, abstract: State, parent: dict[str, Any]) -> State:
    """The state before step 1 with the weights of `parent`, sharded as `abstract` says."""
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    params = load_run(
        parent["run"], parent["step"], where=where["params"], trust_code=True
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
