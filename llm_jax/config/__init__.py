"""A run as frozen data: all its choices in one value, checked before the run costs anything.

A `RunConfig` comes from a recipe (`configs/*.py`), from the planner, or from JSON. Flags override
its scalar fields. The resolved JSON is stored with the run and in each of its checkpoints. No field
is derived: a value that follows from other fields is a property.

This package uses the standard library only, so `--help`, the planner and the launcher start
without JAX.
"""

from llm_jax.config.codec import (
    from_dict,
    from_json,
    json_file,
    load,
    read_config,
    recipe_folders,
    to_dict,
    to_json,
)
from llm_jax.config.data import DataConfig, TokenizerKind
from llm_jax.config.dataset_info import INFO_FILE, read_dataset_info
from llm_jax.config.encoder import EncoderConfig
from llm_jax.config.errors import ConfigError, UserError, nearest, require
from llm_jax.config.jsonfile import (
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    require_shape,
)
from llm_jax.config.mixture import Amount, MixtureConfig, MixtureSource, MixtureStage
from llm_jax.config.model import ModelConfig, MoeConfig
from llm_jax.config.rope import DynamicRope, LinearRope, Llama3Rope, LongRope, YarnRope
from llm_jax.config.run import RunConfig, check_vocabulary
from llm_jax.config.training import (
    CheckpointConfig,
    ComputeConfig,
    EvalConfig,
    OptimConfig,
    ParallelConfig,
)

__all__ = [
    "INFO_FILE",
    "Amount",
    "CheckpointConfig",
    "ComputeConfig",
    "ConfigError",
    "DataConfig",
    "DynamicRope",
    "EncoderConfig",
    "EvalConfig",
    "LinearRope",
    "Llama3Rope",
    "LongRope",
    "MixtureConfig",
    "MixtureSource",
    "MixtureStage",
    "ModelConfig",
    "MoeConfig",
    "OptimConfig",
    "ParallelConfig",
    "RunConfig",
    "TokenizerKind",
    "UserError",
    "YarnRope",
    "check_vocabulary",
    "from_dict",
    "from_json",
    "json_file",
    "load",
    "nearest",
    "open_regular",
    "parse_json",
    "read_bytes",
    "read_config",
    "read_dataset_info",
    "read_json",
    "read_text",
    "recipe_folders",
    "require",
    "require_shape",
    "to_dict",
    "to_json",
]
