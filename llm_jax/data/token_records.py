"""The tfds builder that writes token streams as records. Importing this imports tfds.

It is a `ShardBasedBuilder`, which writes records one by one in the given order. A
`GeneratorBasedBuilder` keeps a whole split in memory and, above 1 GB, needs TensorFlow.
"""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llm_jax.data.tfds import load_tfds, prepare
from llm_jax.runs.disk_errors import system_error

tfds = load_tfds()
Examples = Iterator[tuple[int, dict[str, np.ndarray]]]
# tfds holds one shard's records at a time: 2^25 tokens are 64 MiB as uint16.
SHARD_TOKENS = 2**25


class Sliced(Protocol):
    """An array, or what gives arrays of a dtype by slices."""

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, tokens: slice, /) -> np.ndarray: ...


class LocalInfo(tfds.core.DatasetInfo):  # type: ignore
    """Does not ask tfds' public bucket, which would leave an empty temporary folder behind."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: no bucket has this text."""


class Tokens(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore
    """Splits of records `tokens: (n,) uint16 | uint32`, consecutive pieces of one stream."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, streams: Mapping[str, Sliced], record_tokens: int, **kwargs: Any):
        self._streams = streams
        self._record_tokens = record_tokens
        super().__init__(**kwargs)

    def _info(self) -> Any:
        dtype = next(iter(self._streams.values())).dtype.type
        tokens = tfds.features.Tensor(
            shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES
        )
        return LocalInfo(
            builder=self,
            description="Consecutive records of one token stream: <s> document </s> <s> …",
            features=tfds.features.FeaturesDict({"tokens": tokens}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        raise NotImplementedError("this builder generates shards")

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> Mapping[str, Sequence[Callable[[], Examples]]]:
        shard = SHARD_TOKENS - SHARD_TOKENS % self._record_tokens
        return {
            split: [
                functools.partial(self._examples, stream, start, min(start + shard, len(stream)))
                for start in range(0, len(stream), shard)
            ]
            for split, stream in self._streams.items()
        }

    def _examples(self, stream: Sliced, first: int, last: int) -> Examples:
        size = self._record_tokens
        for start in range(first, last, size):
            tokens = np.array(stream[start : min(start + size, last)])
            yield start - first, {"tokens": tokens}


def write_records(folder: Path, streams: Mapping[str, Sliced], record_tokens: int) -> None:
    """Writes `folder/tokens/1.0.0`, which `tfds.builder_from_directory` reads.

    Args:
      streams: split → (n,) uint16 | uint32, n > 0.
      record_tokens: tokens per record; the last record of a split may be shorter.

    Raises:
      OSError: a record could not be written.
    """
    builder = Tokens(streams, record_tokens, data_dir=folder, file_format="array_record")
    try:
        with tempfile.TemporaryDirectory() as nothing_to_download:
            prepare(builder, messages=io.StringIO(), download_dir=nothing_to_download)
    except (RuntimeError, OSError) as error:  # array_record's and tfds' names for a failing disk
        raise system_error(error, folder) from error
