"""Starts a run from the weights of another one, with its own optimizer, data and schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import (
    Architecture,
    ConfigError,
    EncoderConfig,
    ModelConfig,
    RunConfig,
    layers_of,
    read_config,
    to_dict,
)
from llm_jax.config.architecture import has_head, trained_by
from llm_jax.data.tokenizers import Tokenizer, has_tokenizer
from llm_jax.models.protocol import model_of, parameter_shapes
from llm_jax.runs.places import folder_and_step
from llm_jax.train.damage import saved_steps
from llm_jax.train.guard import fresh_guard
from llm_jax.train.load import load_run
from llm_jax.train.precision import as_matrices
from llm_jax.train.run_folder import changed_fields, in_words
from llm_jax.train.state import State, abstract_state, fresh_optimizer

HEAD = ("model.head", "model.labels", "model.next_sentence")
"""Fields of what is above an encoder's last layer. A run may begin with weights below another one.
"""
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
    tokenizer `sha256`. What `LONGER` names may differ, and `HEAD` of an encoder."""
    parent = read_config(folder / "run.json", RunConfig)
    changed = changed_fields(to_dict(parent.model), to_dict(config.model), "model")
    has_table = isinstance(config.model, ModelConfig | EncoderConfig)
    if not (has_table and layers_of(config.model).positions == "learned"):
        changed = {name: pair for name, pair in changed.items() if not name.startswith(LONGER)}
    if flag == "--init" and has_head(config.model):
        changed = {name: pair for name, pair in changed.items() if name not in HEAD}
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
    """The state before step 1 with the weights of `parent`, sharded as `abstract` says.

    Layers of a head that `parent` does not have are drawn from `run.seed`.
    """
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    theirs = read_config(Path(parent["run"]) / "run.json", RunConfig).model
    if has_head(config.model) and theirs != config.model:
        params = _under_another_head(config, where["params"], parent, theirs)
    else:
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


def _under_another_head(
    config: RunConfig, where: Any, parent: dict[str, Any], theirs: Architecture
) -> dict[str, Any]:
    """Parameters of the parent where both have them in one shape, and new ones.

    BERT's `classify` takes the layer of the first position from its second task, as transformers
    does.
    """
    mesh = jax.tree.leaves(where)[0].mesh
    objective = trained_by(theirs) or config.objective
    # No parameter has the length, unless both have one table of positions.
    fitting: Any = replace(theirs, max_seq_len=config.model.max_seq_len)
    inner = replace(config, model=fitting, objective=objective)
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(inner, mesh)["params"])
    loaded = load_run(
        parent["run"], parent["step"], where=placed, trust_code=True, shared=True
    ).params
    kept = _kept(loaded, config.model, theirs)
    missing = new_leaves(config.model, theirs)

    def draw(key: jax.Array) -> list[jax.Array]:
        made = model_of(config.model).init(config.model, key)
        return [_at(made, path) for path in missing]

    drawn = jax.jit(draw, out_shardings=[_at(where, path) for path in missing])(
        jax.random.key(config.seed)
    )
    new = {jax.tree_util.keystr(path): leaf for path, leaf in zip(missing, drawn, strict=True)}
    params: dict[str, Any] = jax.tree_util.tree_map_with_path(
        lambda path, sharding: new.get(jax.tree_util.keystr(path), _at(kept, path)), where
    )
    return params


def new_leaves(model: Architecture, theirs: Architecture) -> list[Any]:
    """Paths of the parameters of `model` that a run does not get from one of `theirs`."""
    kept = _kept(parameter_shapes(theirs), model, theirs)
    shapes = jax.tree_util.tree_leaves_with_path(parameter_shapes(model))
    return [path for path, leaf in shapes if np.shape(_at(kept, path)) != leaf.shape]


def new_head_sentence(config: RunConfig, parent: dict[str, Any]) -> str | None:
    """Which layers a run from the weights of `parent` draws; None if it draws none."""
    theirs = read_config(Path(parent["run"]) / "run.json", RunConfig).model
    if not has_head(config.model) or theirs == config.model:
        return None
    paths = ["/".join(entry.key for entry in path) for path in new_leaves(config.model, theirs)]
    if not paths:
        return None
    return f"New for the head, from seed {config.seed}: {', '.join(paths)}."


def _kept(tree: dict[str, Any], model: Any, theirs: Any) -> dict[str, Any]:
    """The tree of `theirs` without outputs that mean something else in `model`."""
    labels = dict(tree.get("labels", {}))
    if "pair" in tree:
        labels = {name: tree["pair"][name] for name in ("pool", "pool_bias")}
    if (model.head, model.labels) != (theirs.head, theirs.labels):
        labels = {name: leaf for name, leaf in labels.items() if name.startswith("pool")}
    return tree | {"labels": labels}


def _at(tree: Any, path: Any) -> Any:
    """The leaf at `path`; None if there is none."""
    for entry in path:
        if not isinstance(tree, dict) or entry.key not in tree:
            return None
        tree = tree[entry.key]
    return tree
