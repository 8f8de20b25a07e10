"""A run as frozen data: all its choices in one value, checked before the run costs anything.

A `RunConfig` comes from a recipe (`configs/*.py`), from the planner, or from JSON. Flags override
its scalar fields. The resolved JSON is stored with the run and in each of its checkpoints. No field
is derived: a value that follows from other fields is a property.

This package uses the standard library only, so `--help`, the planner and the launcher start
without JAX.
"""

from llm_jax.config.architecture import (
    Architecture,
    SourceToTarget,
    decoder_of,
    generative_of,
    layers_of,
)
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
from llm_jax.config.encoder_decoder import EncoderDecoderConfig
from llm_jax.config.errors import ConfigError, UserError, nearest, require
from llm_jax.config.jsonfile import (
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    require_shape,
)
from llm_jax.config.latent import LatentConfig
from llm_jax.config.mixture import Amount, MixtureConfig, MixtureSource, MixtureStage
from llm_jax.config.model import ModelConfig
from llm_jax.config.modern_encoder import ModernEncoderConfig
from llm_jax.config.moe import MoeConfig
from llm_jax.config.recurrent import RecurrentConfig
from llm_jax.config.recurrent_encoder_decoder import RecurrentEncoderDecoderConfig
from llm_jax.config.rope import DynamicRope, LinearRope, Llama3Rope, LongRope, YarnRope
from llm_jax.config.run import RunConfig, check_vocabulary
from llm_jax.config.training import (
    CheckpointConfig,
    ComputeConfig,
    EvalConfig,
    OptimConfig,
    ParallelConfig,
)
from llm_jax.config.transformer_encoder_decoder import TransformerEncoderDecoderConfig
from llm_jax.config.word2vec import Word2VecConfig

__all__ = [
    "INFO_FILE",
    "Amount",
    "Architecture",
    "CheckpointConfig",
    "ComputeConfig",
    "ConfigError",
    "DataConfig",
    "DynamicRope",
    "EncoderConfig",
    "EncoderDecoderConfig",
    "EvalConfig",
    "LatentConfig",
    "LinearRope",
    "Llama3Rope",
    "LongRope",
    "MixtureConfig",
    "MixtureSource",
    "MixtureStage",
    "ModelConfig",
    "ModernEncoderConfig",
    "MoeConfig",
    "OptimConfig",
    "ParallelConfig",
    "RecurrentConfig",
    "RecurrentEncoderDecoderConfig",
    "RunConfig",
    "SourceToTarget",
    "TokenizerKind",
    "TransformerEncoderDecoderConfig",
    "UserError",
    "Word2VecConfig",
    "YarnRope",
    "check_vocabulary",
    "decoder_of",
    "from_dict",
    "from_json",
    "generative_of",
    "json_file",
    "layers_of",
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
