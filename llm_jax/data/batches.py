"""From a dataset to training batches, by random access: a step is computed, not replayed.

Window w of a split's stream is the T+1 tokens from w·T on: T inputs, and T targets one token later.
Each epoch visits every window once, in a pseudo-random order that is a function of (seed, epoch).
Step s takes B consecutive windows of this endless order. So the global batch depends on (seed,
step) alone, and not on the number of hosts. Step 10 million costs the same as step 10. If T or the
seed changes in mid-epoch, `order.py` has the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from llm_jax.config import UserError, require
from llm_jax.config.errors import check_seed
from llm_jax.data.batch import IGNORED, Rows
from llm_jax.data.order import Order
from llm_jax.data.prefetch import Prefetch
from llm_jax.data.tokenizers import Marks

if TYPE_CHECKING:
    from llm_jax.data.dataset import TokenDataset

MOST_TOKENS = 2**31 - 1
"""Of a batch."""
MOST_ROWS = 2**62
"""Sequences that an order numbers."""


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
      prepare: adds arrays to those of `PACKED` (`Objective.prepare`).

    Attributes:
      windows: windows of T inputs in the split.

    Raises:
      UserError: an unknown split, a split shorter than one window, B not divisible by `hosts`, or a
        number that is out of range.
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
        prepare: Callable[[Rows, np.ndarray], Rows] | None = None,
    ) -> None:
        _check_sizes(seq_len, batch_size, seed)
        if batch_size % hosts:
            raise UserError(
                f"data.batch_size is {batch_size}, which {hosts} hosts do not divide: choose a "
                f"multiple of {hosts}."
            )
        self.dataset = dataset
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self._text = dataset.windows(split, seq_len)
        self.windows = self._text.windows
        self._prepare = prepare
        self._order = order or Order(dataset.num_tokens(split), seq_len, seed or 0)
        self._rows = np.arange(batch_size // hosts, dtype=np.int64) + host * (batch_size // hosts)
        self._rows += offset

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every window has been read; the last may reach into the next epoch."""
        return -(-self.windows // self.batch_size)

    def at(self, step: int) -> Rows:
        """The batch of `step`, counted from 0.

        Returns:
          The arrays of `PACKED`, (b, T) int32 each with b = B/hosts, and those that `prepare` adds.
        """
        return self.run(step, 1)[0]

    def run(self, step: int, count: int) -> list[Rows]:
        """The batches of `count` steps from `step` on, read together, because each call into the
        files costs as much as reading about 10,000 tokens."""
        if not 0 <= step <= MOST_ROWS // self.batch_size - count:
            raise UserError(
                f"The step is {step}: give one from 0 to {MOST_ROWS // self.batch_size - count:,}."
            )
        steps = np.arange(step, step + count, dtype=np.int64)
        rows = (steps[:, None] * self.batch_size + self._rows).reshape(-1)
        batch = self._unprepared(rows)
        if self._prepare:
            batch = self._prepare(batch, rows)
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

    def _unprepared(self, rows: np.ndarray) -> Rows:
        if self.seed is None:
            return self._text.in_order(rows)
        return self._text.shuffled(self._order, rows)


class Windows:
    """Reads windows of one split.

    Attributes:
      windows: number of windows of `seq_len` inputs.

    Raises:
      UserError: an unknown split, or one shorter than a window.
    """

    def __init__(self, dataset: TokenDataset, split: str, seq_len: int) -> None:
        tokens = dataset.num_tokens(split)
        if seq_len >= tokens:
            raise UserError(
                f"data.seq_len is {seq_len}, but split {split!r} of {dataset.path} has only "
                f"{tokens} tokens: shorten it, or build a larger dataset."
            )
        self._dataset, self._split, self._seq_len = dataset, split, seq_len
        self._marks = dataset.tokenizer.marks
        self.windows = (tokens - 1) // seq_len

    def in_order(self, rows: np.ndarray) -> Rows:
        """The windows of these numbers; one after the last has no target."""
        batch = self._read(np.minimum(rows, self.windows - 1) * self._seq_len)
        batch["targets"][rows >= self.windows] = IGNORED
        return batch

    def shuffled(self, order: Order, rows: np.ndarray) -> Rows:
        """What `rows` (k,) int64 of `order` read: the arrays of `PACKED`, (k, T) each."""
        pieced = (rows < order.first_rows) & (order.left is not None)
        if not pieced.any():
            return self._read(order.whole(rows))
        batch = self._read_pieces(*order.pieced(rows[pieced]))
        if pieced.all():
            return batch
        after = self._read(order.whole(rows[~pieced]))
        places = np.concatenate([np.flatnonzero(pieced), np.flatnonzero(~pieced)])
        return together([batch, after], places)

    def _read(self, starts: np.ndarray) -> Rows:
        tokens = self._dataset.read(self._split, starts, self._seq_len + 1)
        return split_documents(tokens, self._marks)

    def _read_pieces(self, places: np.ndarray, starts: np.ndarray, filled: np.ndarray) -> Rows:
        """The batch for the result of `Order.pieced`. Pieces are kept apart, like documents."""
        both = self._dataset.gather(self._split, np.stack([places, places + 1]))
        batch = documents(both[0], both[1], self._marks, starts)
        batch["targets"][filled] = IGNORED
        return batch


def together(parts: list[Rows], places: np.ndarray) -> Rows:
    """The rows of all `parts`, one after another, each moved to its place (rows,)."""
    back = np.argsort(places)
    return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}


def split_documents(tokens: np.ndarray, marks: Marks) -> Rows:
    """The arrays of `PACKED`, each (b, T), for windows (b, T+1) int32."""
    return documents(tokens[:, :-1], tokens[:, 1:], marks)


def documents(
    inputs: np.ndarray, following: np.ndarray, marks: Marks, starts: np.ndarray | None = None
) -> Rows:
    """The arrays of `PACKED`, for inputs and the token after each, (b, T) int32.

    Args:
      starts: (b, T) bool, where a context begins although no document does.
    """
    begins = inputs == marks.begin
    if starts is not None:
        begins |= starts
    segments = np.cumsum(begins, axis=1, dtype=np.int32)
    segments += ~begins[:, :1]
    column = np.arange(inputs.shape[1], dtype=np.int32)
    given = (following == marks.begin) & (not marks.shared)
    begin = np.maximum.accumulate(np.where(begins, column, 0), axis=1)
    return {
        "inputs": np.ascontiguousarray(inputs),
        "targets": np.where(given, np.int32(IGNORED), following),
        "segments": segments,
        "positions": column - begin,
    }


def _check_sizes(seq_len: int, batch_size: int, seed: int | None) -> None:
    """Raises `ConfigError` for numbers that no memory holds, or that are none."""
    for name, value in (("seq_len", seq_len), ("batch_size", batch_size)):
        require(value > 0, f"data.{name} is {value}: it must be above 0.")
    require(
        seq_len * batch_size <= MOST_TOKENS,
        f"data.batch_size is {batch_size} and data.seq_len {seq_len}: a batch has at most "
        f"{MOST_TOKENS:,} tokens.",
    )
    if seed is not None:
        check_seed("data", seed)
