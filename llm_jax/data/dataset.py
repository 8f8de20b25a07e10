"""A dataset on disk: the token stream of each split, read by random access.

A split is one stream of tokens `<s> document </s> <s> document </s> …`, stored as records.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import ConfigError, UserError, read_dataset_info
from llm_jax.data.batches import Batches, Windows
from llm_jax.data.record_files import check_records
from llm_jax.data.tfds import load_tfds
from llm_jax.data.tokenizers import Tokenizer

RECORDS_FOLDER = "tokens/1.0.0"


class UnreadableRecords(UserError):
    """A failing disk or mount: another try may succeed."""

    exit_code = 1


class DamagedRecords(ConfigError):
    """Records that are not what was written: no other try can read them."""


# What array_record says of a file's content; what it says of a disk comes as the same exception.
CORRUPT = re.compile(r"[Cc]orrupted|hash mismatch|should be at least|DATA_LOSS|[Ii]nvalid")


class RecordReader:
    """Random access to the records of one split, through tfds.

    tfds reads the bytes. Its generic decoding takes three times as long as the reading, so one line
    that decodes the only feature of the `Tokens` builder replaces it.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        with self._named():
            self._open()

    def _open(self) -> None:
        tfds = load_tfds()
        builder = tfds.builder_from_directory(self._folder)
        self._dtype = np.dtype(builder.info.features["tokens"].np_dtype)
        self._source = builder.as_data_source(
            split=self._split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )

    def read(self, numbers: list[int]) -> list[np.ndarray]:
        with self._named():
            try:
                return self._read(numbers)
            except RuntimeError:
                self._open()  # what a network has damaged on its way is whole the second time
                return self._read(numbers)

    def _read(self, numbers: list[int]) -> list[np.ndarray]:
        from tensorflow_datasets.proto import tf_example_pb2

        examples = map(tf_example_pb2.Example.FromString, self._source.__getitems__(numbers))
        values = (one.features.feature["tokens"].bytes_list.value[0] for one in examples)
        return [np.frombuffer(value, self._dtype) for value in values]

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Turns the errors of tfds and its formats into one sentence that names the folder."""
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            may_pass = isinstance(error, RuntimeError) and not CORRUPT.search(str(error))
            kind = UnreadableRecords if may_pass else DamagedRecords
            raise kind(
                f"The records in {self._folder} {'cannot be read' if may_pass else 'are damaged'} "
                f"({why}): restore them, or build the dataset again."
            ) from error


class TokenDataset:
    """A folder that `llm-jax data build` wrote; `LabelledDataset` is one of `llm-jax data label`.

    Attributes:
      path: the folder.
      info: the content of `dataset.json`: provenance and counts.
      tokenizer: the tokenizer that the tokens belong to.
    """

    def __init__(self, path: Path, info: dict[str, Any], tokenizer: Tokenizer) -> None:
        self.path = path
        self.info = info
        self.tokenizer = tokenizer
        self._readers: dict[str, RecordReader] = {}

    @classmethod
    def open(cls, path: str | Path) -> TokenDataset:
        """Opens a dataset.

        Args:
          path: folder of the dataset.

        Raises:
          UserError: `path` holds no finished dataset, or another tokenizer than its own.
          MissingRecords: not all of its records are there.
        """
        path = Path(path)
        info = read_dataset_info(path)
        tokenizer = Tokenizer.load(path)
        if tokenizer.sha256 != info["tokenizer_sha256"]:
            raise UserError(
                f"The tokenizer in {path} is not the one that the dataset was built with: "
                "restore it, or build the dataset again."
            )
        if "examples" in info:
            from llm_jax.data.labelled.dataset import LabelledDataset

            return LabelledDataset(path, info, tokenizer)
        check_records(path / RECORDS_FOLDER)
        return cls(path, info, tokenizer)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per token over all splits; `<s>` and `</s>` count as tokens."""
        return self.info["bytes"] / self.info["tokens"]

    def batches(
        self, split: str = "train", *, seq_len: int, batch_size: int, seed: int | None = 0
    ) -> Batches:
        """The batches of a split on one host.

        Args:
          split: "train" or "validation".
          seq_len: T, tokens per sequence.
          batch_size: B, sequences per step.
          seed: seed of the order of the sequences; None: one pass in the order of the text.

        Raises:
          UserError: an unknown split, or one shorter than `seq_len`.
        """
        return Batches(self, split=split, seq_len=seq_len, batch_size=batch_size, seed=seed)

    def windows(self, split: str, seq_len: int) -> Any:
        """What reads windows of `seq_len` inputs of a split; raises as `Windows` does."""
        return Windows(self, split, seq_len)

    def num_tokens(self, split: str) -> int:
        """Number of tokens of a split.

        Args:
          split: "train" or "validation".

        Raises:
          UserError: an unknown split.
        """
        if split not in self.info["splits"]:
            known = ", ".join(self.info["splits"])
            raise UserError(f"{self.path} has no split {split!r}: it has {known}.")
        return self.info["splits"][split]["tokens"]

    def records(self, split: str, numbers: list[int]) -> list[np.ndarray]:
        """Records of `split`, each (n,) uint16 | uint32. n is `info["record_tokens"]`, or less in
        the last record."""
        if split not in self._readers:
            self._readers[split] = RecordReader(self.path / RECORDS_FOLDER, split)
        return self._readers[split].read(numbers)

    def read(self, split: str, starts: np.ndarray, length: int) -> np.ndarray:
        """Tokens start … start + length - 1 of the split's stream for each of `starts`.

        Args:
          split: "train" or "validation".
          starts: (b,) int64, with start + length ≤ `num_tokens(split)`.
          length: tokens to read from each start.

        Returns:
          (b, length) int32.
        """
        size = self.info["record_tokens"]
        first, last = starts // size, (starts + length - 1) // size
        spans = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
        records = np.unique(np.concatenate(spans))
        # A window's records are consecutive numbers, hence neighbours among the sorted records.
        begin = np.searchsorted(records, first) * size + starts % size
        return self._filled(split, records).reshape(-1)[begin[:, None] + np.arange(length)]

    def gather(self, split: str, places: np.ndarray) -> np.ndarray:
        """Tokens of the stream at `places`, int64 of any shape; int32 of the same shape."""
        size = self.info["record_tokens"]
        records = np.unique(places // size)
        row = np.searchsorted(records, places // size)
        return self._filled(split, records)[row, places % size]

    def _filled(self, split: str, records: np.ndarray) -> np.ndarray:
        """(n, record_tokens) int32: the records of these numbers; a short one is padded."""
        size = self.info["record_tokens"]
        buffer = np.zeros((len(records), size), np.int32)
        whole = np.minimum(size, self.num_tokens(split) - records * size)
        for row, tokens, length in zip(
            buffer, self.records(split, records.tolist()), whole.tolist(), strict=True
        ):
            if len(tokens) != length:
                raise DamagedRecords(
                    f"The records in {self.path / RECORDS_FOLDER} are damaged (one has "
                    f"{len(tokens)} tokens, not {length}): restore them, or build the dataset "
                    "again."
                )
            row[:length] = tokens
        return buffer

    def find(self, split: str, token: int, start: int) -> int | None:
        """Place of the first `token` at or after `start` in the stream, None if there is none."""
        size = self.info["record_tokens"]
        for record in range(start // size, -(-self.num_tokens(split) // size)):
            places = np.flatnonzero(self.records(split, [record])[0] == token) + record * size
            places = places[places >= start]
            if len(places):
                return int(places[0])
        return None
