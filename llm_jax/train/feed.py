"""From the host's batches to global arrays on the mesh."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from llm_jax.config import ConfigError, RunConfig, UserError, check_vocabulary, require
from llm_jax.data.batch import PACKED, Array, Rows
from llm_jax.data.batches import Batches
from llm_jax.data.dataset import TokenDataset, UnreadableRecords
from llm_jax.data.labelled.dataset import LabelledDataset
from llm_jax.data.mixed_batches import MixedBatches
from llm_jax.data.record_files import MissingRecords
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import Batch
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.mesh import sharding
from llm_jax.runs.history import Text, mixed_text
from llm_jax.train.course import Stage

Datasets = tuple[TokenDataset, ...]
"""One, or those of a mixture in the order of its sources."""


def open_datasets(config: RunConfig) -> Datasets:
    """What the run reads: one dataset, or the sources of its mixture in their order.

    Raises:
      ConfigError: the vocabulary is not that of the model, or sources of a mixture have different
        tokenizers or the same text.
    """
    opened = tuple(_open(name, folder) for name, folder in config.data.folders.items())
    check_vocabulary(config, opened[0].tokenizer.vocab_size)
    first, known = opened[0], dict[str, TokenDataset]()
    for dataset in opened:
        _check_examples(dataset, config)
        require(
            dataset.tokenizer.sha256 == first.tokenizer.sha256,
            f"data.mixture: {dataset.path} has another tokenizer than {first.path}: build it again "
            f"with --tokenizer {first.path}.",
        )
        same = known.setdefault(dataset.info["fingerprint"], dataset)
        require(
            same is dataset,
            f"data.mixture: {dataset.path} and {same.path} hold the same text: keep one of them.",
        )
    return opened


def _check_examples(dataset: TokenDataset, config: RunConfig) -> None:
    """Raises `ConfigError` unless the dataset holds what the objective learns from."""
    wanted = objective_of(config).examples
    if not isinstance(dataset, LabelledDataset):
        require(
            wanted is None,
            f"objective is {config.objective!r}, which learns from labelled examples, but "
            f"{dataset.path} holds text: build examples with `llm-jax data label`.",
        )
        return
    require(
        wanted == dataset.kind,
        f"{dataset.path} holds examples of {dataset.kind!r}, from which objective "
        f"{config.objective!r} does not learn: give an encoder, and begin with `train --init RUN "
        f"--data.path {dataset.path}`.",
    )
    labels = getattr(config.model, "labels", ())
    require(
        labels == dataset.labels,
        f"model.labels is {list(labels)!r}, but the examples in {dataset.path} have "
        f"{list(dataset.labels)!r}: build them with the same labels, or begin another run.",
    )


def _open(name: str, folder: str) -> TokenDataset:
    what = f"data.mixture: source {name!r}" if name else "data.path"
    try:
        return TokenDataset.open(folder)
    except MissingRecords as error:
        raise ConfigError(f"{what}: {error}") from None
    except UnreadableRecords:
        raise
    except UserError as error:
        if not name:
            raise
        raise ConfigError(f"{what}: {error}") from None


def training_text(datasets: Datasets, config: RunConfig) -> Text:
    """Which text the training splits hold."""
    return mixed_text(
        [
            Text(dataset.info["fingerprint"], dataset.num_tokens("train"), name=name)
            for name, dataset in zip(config.data.folders, datasets, strict=True)
        ]
    )


def padded_token_bytes(tokenizer: Tokenizer, config: RunConfig) -> np.ndarray:
    """(V,) int32 UTF-8 bytes of each token of the model's vocabulary; 0 for padding."""
    token_bytes = tokenizer.token_bytes
    return np.pad(token_bytes, (0, config.model.vocab_size - len(token_bytes)))


def training_batches(datasets: Datasets, stage: Stage, mesh: Mesh) -> MixedBatches:
    """The part of the batches of a stage that this process's devices hold."""
    data = stage.config.data
    host, hosts = _share(mesh, data.batch_size, data.seq_len)
    return MixedBatches(
        datasets,
        stage.reading,
        seq_len=data.seq_len,
        batch_size=data.batch_size,
        seed=data.seed,
        host=host,
        hosts=hosts,
        offset=stage.offset,
        prepare=objective_of(stage.config).rows(datasets[0].tokenizer),
    )


def held_out_batches(dataset: TokenDataset, config: RunConfig, mesh: Mesh) -> Batches:
    """The part of the validation split's batches that this process's devices hold. A batch has the
    size of one micro-batch, and they are not shuffled."""
    B = config.data.batch_size // config.compute.accumulate
    host, hosts = _share(mesh, B, config.data.seq_len)
    return Batches(
        dataset,
        split="validation",
        seq_len=config.data.seq_len,
        batch_size=B,
        seed=None,
        host=host,
        hosts=hosts,
        prepare=objective_of(config).rows(dataset.tokenizer),
    )


def _share(mesh: Mesh, B: int, T: int) -> tuple[int, int]:
    """Number of this host and number of hosts, as far as (B, T) arrays are split over hosts."""
    where = sharding(mesh, ("batch", "length"))
    parts = where.addressable_devices_indices_map((B, T)).values()
    rows = [part[0] for part in parts if part is not None]
    first = min(r.start or 0 for r in rows)
    count = max(B if r.stop is None else r.stop for r in rows) - first
    return first // count, B // count


def to_device(local: Rows, mesh: Mesh, arrays: Mapping[str, Array] = PACKED) -> Batch:
    """This process's rows as its part of the global arrays.

    Args:
      arrays: what the batch holds (`Objective.arrays`).
    """
    return {
        name: jax.make_array_from_process_local_data(sharding(mesh, arrays[name].axes), rows)
        for name, rows in local.items()
    }
