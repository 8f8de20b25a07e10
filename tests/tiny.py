"""Models, runs and batches small enough that compiling them is most of the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
)
from llm_jax.data.batches import split_documents
from llm_jax.data.tokenizers import Marks
from llm_jax.models.protocol import parameter_shapes
from llm_jax.train.feed import to_device
from llm_jax.train.state import abstract_state

VOCAB = 512
MARKS = Marks(1, 2)
BOS = MARKS.begin


def model_config(**changes: Any) -> ModelConfig:
    """A Llama of 2 layers that divides by 8 in width and by 4 in heads and vocabulary."""
    fields: dict[str, Any] = {
        "vocab_size": 64,
        "num_layers": 2,
        "d_model": 32,
        "num_heads": 8,
        "num_kv_heads": 4,
        "head_dim": 8,
        "d_ff": 64,
        "max_seq_len": 64,
    }
    return ModelConfig(**(fields | changes))


def compute_config(**changes: Any) -> ComputeConfig:
    fields: dict[str, Any] = {"dtype": "float32", "remat": "none", "loss_chunk": 64}
    return ComputeConfig(**(fields | changes))


def optim_config(**changes: Any) -> OptimConfig:
    fields: dict[str, Any] = {"learning_rate": 3e-3, "warmup_steps": 2}
    return OptimConfig(**(fields | changes))


def run_config(
    out: Path | str = "unused", dataset: Path | str = "unused", **changes: Any
) -> RunConfig:
    """A run of `model_config` in float32 that logs every step; `changes` replace fields."""
    fields: dict[str, Any] = {
        "name": "test",
        "out": str(out),
        "steps": 20,
        "log_every": 1,
        "model": model_config(),
        "compute": compute_config(),
        "data": DataConfig(path=str(dataset), seq_len=16, batch_size=8),
        "optim": optim_config(),
        "checkpoint": CheckpointConfig(every=5),
        "eval": EvalConfig(every=1000, batches=1),
    }
    return RunConfig(**(fields | changes))


def packed_batch(B: int, T: int, vocab: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """A host batch of random tokens with about three documents in each row."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, vocab, (B, T + 1), dtype=np.int32)
    tokens[rng.random((B, T + 1)) < 3 / T] = BOS
    return split_documents(tokens, MARKS)


def device_batch(host: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    return to_device(host, mesh)


def parameters(config: Any, seed: int = 0, size: float = 0.2) -> Any:
    """Random values of deviation `size` for every leaf, biases too, norms around 1.

    Nothing is compiled: `init` takes longer than most of what is tested with it.
    """
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        middle = np.float32(path[-1].key == "scale")
        return middle + np.float32(size) * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, parameter_shapes(config))


def state_on(config: RunConfig, mesh: Mesh) -> Any:
    """A training state of `parameters` with empty moments, sharded over the mesh."""
    abstract = abstract_state(config, mesh)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    params = jax.tree.map(
        lambda leaf, like: leaf.astype(like.dtype), parameters(config.model), abstract["params"]
    )
    return jax.device_put(zeros | {"params": params}, shardings)


def relative_error(found: Any, wanted: Any, least: float = 1e-30) -> float:
    """Largest difference of two trees' leaves, each relative to its leaf's largest value, or to
    `least` where that is smaller."""
    errors = jax.tree.map(
        lambda a, b: np.max(np.abs(np.asarray(a) - b)) / max(np.max(np.abs(b)), least),
        jax.device_get(found),
        jax.device_get(wanted),
    )
    return float(max(jax.tree.leaves(errors)))
