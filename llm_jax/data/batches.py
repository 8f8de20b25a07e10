"""From a dataset on disk to training batches, by random access: a step is computed, not replayed.

A split is one stream of tokens `<s> document </s> <s> document </s> …`. Window w is the T+1 tokens
from w·T on: T inputs, and T targets one token later. Each epoch visits every window once, in a
pseudo-random order that is a function of (seed, epoch). Step s takes B consecutive windows of this
endless order. So the global batch depends on (seed, step) alone, and not on the number of hosts.
Step 10 million costs the same as step 10. If T or the seed changes in mid-epoch, `order.py` has the
rule.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import UserError, read_dataset_info
from llm_jax.data.order import Order
from llm_jax.data.record_files import check_records
from llm_jax.data.tfds import load_tfds
from llm_jax.data.tokenizer import Tokenizer

TOKENIZER_FILE = "tokenizer.model"
RECORDS_FOLDER = "tokens/1.0.0"
IGNORED = -1
"""Target that the loss ignores."""
# Tokens that the prefetcher reads together, and how many such groups it keeps ready, 2 MB each.
GROUP_TOKENS = 2**17
GROUPS_AHEAD = 3

Batch = dict[str, np.ndarray]
"""Arrays by name, as `Batches.at` returns them."""


class UnreadableRecords(UserError):
    """Damaged records, or a failing disk: another try may succeed."""

    exit_code = 1


class RecordReader:
    """Random access to the records of one split, through tfds.

    tfds reads the bytes. Its generic decoding takes three times as long as the reading, so one line
    that decodes the only feature of the `Tokens` builder replaces it.
    """

    def __init__(self, folder: Path, split: str) -> None:
        tfds = load_tfds()
        self._folder = folder
        with self._named():
            builder = tfds.builder_from_directory(folder)
            self._dtype = np.dtype(builder.info.features["tokens"].np_dtype)
            self._source = builder.as_data_source(
                split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )

    def read(self, numbers: list[int]) -> list[np.ndarray]:
        from tensorflow_datasets.proto import tf_example_pb2

        with self._named():
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
            raise UnreadableRecords(
                f"The records in {self._folder} cannot be read ({why}): restore them, or build the "
                "dataset again."
            ) from error


class TokenDataset:
    """A folder that `llm-jax data build` wrote.

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
        tokenizer = Tokenizer.load(path / TOKENIZER_FILE)
        if tokenizer.sha256 != info["tokenizer_sha256"]:
            raise UserError(
                f"{path / TOKENIZER_FILE} is not the tokenizer that the dataset was built with: "
                "restore it, or build the dataset again."
            )
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
        buffer = np.zeros((len(records), self.info["record_tokens"]), np.int32)
        for row, tokens in zip(buffer, self.records(split, records.tolist()), strict=True):
            row[: len(tokens)] = tokens
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


class Batches:
    """The batches of one host, as a function of the step. `TokenDataset.batches` makes them.

    A sequence is a window of the split's stream: T inputs, and T targets one token later. Each
    epoch reads every window once.

    Args:
      dataset: what is read.
      split: "train" or "validation".
      seq_len: T, inputs per sequence.
      batch_size: B, sequences per step over all hosts.
      seed: seed of the order of the windows. None: one pass from the first to the last, whose last
        step is padded with sequences that have no target.
      host: number of this host, from 0. It reads B/hosts rows of each global batch, from row
        host·B/hosts on.
      hosts: number of hosts.
      order: order of the windows; by default that of `seed`, from its beginning.
      offset: step n begins with row n·B + offset of the order. It is not 0 if earlier steps had
        another batch size or another order.

    Attributes:
      windows: windows of T inputs in the split.

    Raises:
      UserError: an unknown split, a split shorter than one window, B not divisible by `hosts`.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        *,
        split: str,
        seq_len: int,
        batch_size: int,
        seed: int | None,
        host: int = 0,
        hosts: int = 1,
        order: Order | None = None,
        offset: int = 0,
    ) -> None:
        tokens = dataset.num_tokens(split)
        if seq_len >= tokens:
            raise UserError(
                f"data.seq_len is {seq_len}, but split {split!r} of {dataset.path} has only "
                f"{tokens} tokens: shorten it, or build a larger dataset."
            )
        if batch_size % hosts:
            raise UserError(
                f"data.batch_size is {batch_size}, which {hosts} hosts do not divide: choose a "
                f"multiple of {hosts}."
            )
        self.dataset = dataset
        self.split = split
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self.windows = (tokens - 1) // seq_len
        self._order = order or Order(tokens, seq_len, seed or 0)
        self._rows = np.arange(batch_size // hosts, dtype=np.int64) + host * (batch_size // hosts)
        self._rows += offset

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every window has been read; the last may reach into the next epoch."""
        return -(-self.windows // self.batch_size)

    def at(self, step: int) -> Batch:
        """The batch of `step`, counted from 0: four arrays by name, with b = B/hosts rows.

        Returns:
          inputs (int32): (b, T), token ids.
          targets (int32): (b, T), the token after each input; -1 where that token begins another
            document, so that nothing is trained across documents.
          segments (int32): (b, T), number of the document inside the window, from 1.
          positions (int32): (b, T), distance from the document's first token inside the window.
        """
        return self.run(step, 1)[0]

    def run(self, step: int, count: int) -> list[Batch]:
        """The batches of `count` steps from `step` on, read together, because each call into the
        files costs as much as reading about 10,000 tokens."""
        steps = np.arange(step, step + count, dtype=np.int64)
        rows = (steps[:, None] * self.batch_size + self._rows).reshape(-1)
        batch = self._in_order(rows) if self.seed is None else self._shuffled(rows)
        b = len(self._rows)
        return [
            {name: array[i * b : (i + 1) * b] for name, array in batch.items()}
            for i in range(count)
        ]

    def iterate(self, start_step: int = 0) -> Prefetch:
        """(step, batch) from `start_step` on, prepared ahead by threads; close it when done.

        It is endless with a seed. With `seed=None` it ends after `steps_per_epoch`.

        Args:
          start_step: first step, counted from 0.
        """
        return Prefetch(self, start_step, self.steps_per_epoch if self.seed is None else None)

    def _shuffled(self, rows: np.ndarray) -> Batch:
        order = self._order
        pieced = (rows < order.first_rows) & (order.left is not None)
        if not pieced.any():
            return self._read(order.whole(rows))
        batch = self._read_pieces(*order.pieced(rows[pieced]))
        if pieced.all():
            return batch
        after = self._read(order.whole(rows[~pieced]))
        back = np.argsort(np.concatenate([np.flatnonzero(pieced), np.flatnonzero(~pieced)]))
        return {name: np.concatenate([batch[name], after[name]])[back] for name in batch}

    def _in_order(self, rows: np.ndarray) -> Batch:
        batch = self._read(np.minimum(rows, self.windows - 1) * self.seq_len)
        batch["targets"][rows >= self.windows] = IGNORED
        return batch

    def _read(self, starts: np.ndarray) -> Batch:
        tokens = self.dataset.read(self.split, starts, self.seq_len + 1)
        return split_documents(tokens, self.dataset.tokenizer.bos_id)

    def _read_pieces(self, places: np.ndarray, starts: np.ndarray, filled: np.ndarray) -> Batch:
        """The batch for the result of `Order.pieced`. Pieces are kept apart, like documents."""
        both = self.dataset.gather(self.split, np.stack([places, places + 1]))
        batch = documents(both[0], both[1], self.dataset.tokenizer.bos_id, starts)
        batch["targets"][filled] = IGNORED
        return batch


def split_documents(tokens: np.ndarray, bos_id: int) -> Batch:
    """What `Batches.at` returns, each (b, T), for windows (b, T+1) int32."""
    return documents(tokens[:, :-1], tokens[:, 1:], bos_id)


def documents(
    inputs: np.ndarray, following: np.ndarray, bos_id: int, starts: np.ndarray | None = None
) -> Batch:
    """What `Batches.at` returns, for inputs and the token after each, (b, T) int32.

    Args:
      starts: (b, T) bool, where a context begins although no document does.
    """
    begins = inputs == bos_id
    if starts is not None:
        begins |= starts
    segments = np.cumsum(begins, axis=1, dtype=np.int32)
    segments += ~begins[:, :1]
    column = np.arange(inputs.shape[1], dtype=np.int32)
    begin = np.maximum.accumulate(np.where(begins, column, 0), axis=1)
    return {
        "inputs": np.ascontiguousarray(inputs),
        "targets": np.where(following == bos_id, np.int32(IGNORED), following),
        "segments": segments,
        "positions": column - begin,
    }


class Prefetch:
    """Iterator of (step, batch); two threads prepare the next batches in groups.

    An exception in a thread is raised by the `next` that would have given its batch. Use as a
    context manager, or call `close`.
    """

    def __init__(self, batches: Batches, start: int, end: int | None) -> None:
        self._batches = batches
        self._next, self._end = start, end
        self._group = max(1, GROUP_TOKENS // (batches.batch_size * batches.seq_len))
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="batches")
        self._ready: deque[tuple[int, Batch]] = deque()
        self._ahead: deque[tuple[int, Future[list[Batch]]]] = deque()
        for _ in range(GROUPS_AHEAD):
            self._submit()

    def _submit(self) -> None:
        count = self._group if self._end is None else min(self._group, self._end - self._next)
        if count > 0:
            future = self._pool.submit(self._batches.run, self._next, count)
            self._ahead.append((self._next, future))
            self._next += count

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        return self

    def __next__(self) -> tuple[int, Batch]:
        if not self._ready:
            if not self._ahead:
                raise StopIteration
            first, future = self._ahead.popleft()
            self._ready.extend(enumerate(future.result(), first))
            self._submit()
        return self._ready.popleft()

    def close(self) -> None:
        """Stops the threads and ends the iterator."""
        self._end = self._next
        self._ready.clear()
        self._ahead.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
