"""From the host's batches to global arrays on the mesh."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from llm_jax.config import ConfigError, RunConfig, check_vocabulary
from llm_jax.data.batch import PACKED, Array, Rows
from llm_jax.data.batches import Batches
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.order import Order
from llm_jax.data.record_files import MissingRecords
from llm_jax.models.protocol import Batch
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.mesh import sharding
from llm_jax.runs.history import Text


def open_dataset(config: RunConfig) -> TokenDataset:
    """The run's dataset; raises `ConfigError` if its vocabulary is not that of the model."""
    try:
        dataset = TokenDataset.open(config.data.path)
    except MissingRecords as error:
        raise ConfigError(f"data.path: {error}") from None
    check_vocabulary(config, dataset.tokenizer.vocab_size)
    return dataset


def training_text(dataset: TokenDataset) -> Text:
    """Which text the dataset's training split holds."""
    return Text(dataset.info["fingerprint"], dataset.num_tokens("train"))


def padded_token_bytes(dataset: TokenDataset, config: RunConfig) -> np.ndarray:
    """(V,) int32 UTF-8 bytes of each token of the model's vocabulary; 0 for padding."""
    token_bytes = dataset.tokenizer.token_bytes
    return np.pad(token_bytes, (0, config.model.vocab_size - len(token_bytes)))


def local_batches(
    dataset: TokenDataset,
    config: RunConfig,
    mesh: Mesh,
    split: str,
    order: Order | None = None,
    offset: int = 0,
) -> Batches:
    """The part of the split's batches that this process's devices hold.

    A training batch has `data.batch_size` sequences in the order of `data.seed`. A validation batch
    has the size of one micro-batch and is not shuffled. `order` and `offset` are those of
    `Batches`.
    """
    data, training = config.data, split == "train"
    B = data.batch_size if training else data.batch_size // config.compute.accumulate
    where = sharding(mesh, ("batch", "length"))
    parts = where.addressable_devices_indices_map((B, data.seq_len)).values()
    rows = [part[0] for part in parts if part is not None]
    first = min(r.start or 0 for r in rows)
    count = max(B if r.stop is None else r.stop for r in rows) - first
    return Batches(
        dataset,
        split=split,
        seq_len=data.seq_len,
        batch_size=B,
        seed=data.seed if training else None,
        host=first // count,
        hosts=B // count,
        order=order,
        offset=offset,
        prepare=objective_of(config).rows,
    )


def to_device(local: Rows, mesh: Mesh, arrays: Mapping[str, Array] = PACKED) -> Batch:
    """This process's rows as its part of the global arrays.

    Args:
      arrays: what the batch holds (`Objective.arrays`).
    """
    return {
        name: jax.make_array_from_process_local_data(sharding(mesh, arrays[name].axes), rows)
        for name, rows in local.items()
    }
