"""The run as frozen data: every choice of a run in one value, checked before anything is spent.

A `RunConfig` is built by a recipe (`configs/*.py`), by the planner, or from JSON; flags override
its scalar fields; the resolved JSON is stored with the run and in each of its checkpoints.
Nothing in it is derived: what follows from other fields is a property.

Standard library only, so that `--help`, the planner and the launcher start without JAX.
"""

from llm_jax.config.codec import from_dict, from_json, load, recipe_folders, to_dict, to_json
from llm_jax.config.errors import ConfigError, UserError, nearest, require
from llm_jax.config.model import Llama3Rope, ModelConfig, MoeConfig, YarnRope
from llm_jax.config.run import PlanRecord, RunConfig
from llm_jax.config.training import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    OptimConfig,
    ParallelConfig,
)

__all__ = [
    "CheckpointConfig",
    "ComputeConfig",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "Llama3Rope",
    "ModelConfig",
    "MoeConfig",
    "OptimConfig",
    "ParallelConfig",
    "PlanRecord",
    "RunConfig",
    "UserError",
    "YarnRope",
    "from_dict",
    "from_json",
    "load",
    "nearest",
    "recipe_folders",
    "require",
    "to_dict",
    "to_json",
]
