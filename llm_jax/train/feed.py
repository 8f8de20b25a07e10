"""From the host's batches to global arrays on the mesh."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from llm_jax.config import ConfigError, RunConfig, check_vocabulary
from llm_jax.data.batches import Batches
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.order import Order
from llm_jax.data.record_files import MissingRecords
from llm_jax.parallel.mesh import sharding
from llm_jax.runs.history import Text
from llm_jax.train.step import Batch


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
    B = data.batch_size if training else data.batch_size // config.optim.accumulate
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
    )


def to_device(local: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """This process's rows as its part of the global (B, T) arrays."""
    where = sharding(mesh, ("batch", "length"))
    return {
        name: jax.make_array_from_process_local_data(where, rows) for name, rows in local.items()
    }
