"""A folder of labelled examples, read by random access as a dataset of text is.

Its "stream" has one window for each example, so the order of a run, its resume and its lineage are
those of text. `data.seq_len` is fixed: it is the length of the rows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import ConfigError, UserError
from llm_jax.config.jsonfile import require_shape
from llm_jax.data.batch import IGNORED, Rows
from llm_jax.data.batches import together
from llm_jax.data.dataset import DamagedRecords, TokenDataset
from llm_jax.data.order import Order
from llm_jax.data.tokenizers import Tokenizer

FOLDER = "examples"
SHAPE: dict[str, Any] = {
    "kind": str,
    "length": int,
    "labels": [str],
    "files": {str: {"sha256": str, "bytes": int}},
}
"""Of `examples` in dataset.json."""


def stream_tokens(examples: int, length: int) -> int:
    """Tokens of a stream whose windows of `length` are so many examples."""
    return examples * length + 1


class LabelledDataset(TokenDataset):
    """A folder that `llm-jax data label` wrote.

    Attributes:
      kind: what its examples are for (`config/heads.py`).
      length: tokens of a row.
      labels: names of the labels.
    """

    def __init__(self, path: Path, info: dict[str, Any], tokenizer: Tokenizer) -> None:
        super().__init__(path, info, tokenizer)
        held = info["examples"]
        try:
            require_shape(held, SHAPE)
        except UserError as error:
            raise DamagedRecords(f"{path} is damaged ({error}): build it again.") from None
        self.kind, self.length = held["kind"], held["length"]
        self.labels = tuple(held["labels"])
        self._splits: dict[str, Rows] = {}

    def rows(self, split: str) -> Rows:
        """The stored arrays of a split (`rows.fill`).

        Raises:
          UserError: an unknown split.
          DamagedRecords: a file is missing or has changed.
        """
        self.num_tokens(split)
        if split not in self._splits:
            names = [
                name for name in self.info["examples"]["files"] if name.startswith(f"{split}-")
            ]
            rows = {
                name.removeprefix(f"{split}-").removesuffix(".npy"): self._array(name)
                for name in names
            }
            count = (self.num_tokens(split) - 1) // max(self.length, 1)
            shapes = {name: array.shape[:1] for name, array in rows.items()}
            whole = all(shape == (count,) for shape in shapes.values())
            if not {"inputs", "targets"} <= shapes.keys() or not whole:
                raise DamagedRecords(f"{self.path} is damaged ({split}: {shapes}): build it again.")
            self._splits[split] = rows
        return self._splits[split]

    def _array(self, name: str) -> np.ndarray:
        path, wanted = self.path / FOLDER / Path(name).name, self.info["examples"]["files"][name]
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            found = "missing"
        if found != wanted["sha256"]:
            raise DamagedRecords(
                f"{path} is not what `llm-jax data label` wrote: restore it, or build it again."
            )
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array

    def windows(self, split: str, seq_len: int) -> Examples:
        """The examples of a split as windows; raises `ConfigError` for another `seq_len`."""
        if seq_len != self.length:
            raise ConfigError(
                f"data.seq_len is {seq_len}, but the examples in {self.path} have {self.length} "
                f"tokens: set it to {self.length}, or build them again with --length {seq_len}."
            )
        return Examples(self.rows(split))

    def read(self, split: str, starts: np.ndarray, length: int) -> np.ndarray:
        """Ids of the rows of a split, one after another; see `TokenDataset.read`."""
        return self.gather(split, starts[:, None] + np.arange(length))

    def gather(self, split: str, places: np.ndarray) -> np.ndarray:
        """Ids at `places` of the rows of a split, one after another."""
        flat = self.rows(split)["inputs"].reshape(-1)
        found: np.ndarray = flat[np.minimum(places, flat.size - 1)].astype(np.int32)
        return found

    def find(self, split: str, token: int, start: int) -> int | None:
        """Place of the first `token` at or after `start`, None if there is none."""
        places = np.flatnonzero(self.rows(split)["inputs"].reshape(-1)[start:] == token)
        return start + int(places[0]) if len(places) else None


class Examples:
    """Rows of examples, read as `batches.Windows` reads text.

    Args:
      rows: as `rows.fill` makes them.

    Attributes:
      windows: number of examples.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.windows = len(rows["targets"])

    def in_order(self, numbers: np.ndarray) -> Rows:
        """The examples of these numbers; one after the last has no target."""
        made = self._at(np.minimum(numbers, self.windows - 1))
        made["targets"][numbers >= self.windows] = IGNORED
        return made

    def shuffled(self, order: Order, rows: np.ndarray) -> Rows:
        """The examples that `rows` (k,) int64 of `order` read.

        After a change of the seed, the rest of an epoch is read in pieces, which are whole examples
        since all windows have one length.
        """
        pieced = (rows < order.first_rows) & (order.left is not None)
        parts, places = list[Rows](), list[np.ndarray]()
        if pieced.any():
            begins = order.pieced(rows[pieced])[0][:, 0]
            parts.append(self._at(begins // order.seq_len))
            places.append(np.flatnonzero(pieced))
        if not pieced.all():
            parts.append(self._at(order.whole(rows[~pieced]) // order.seq_len))
            places.append(np.flatnonzero(~pieced))
        return together(parts, np.concatenate(places))

    def _at(self, numbers: np.ndarray) -> Rows:
        return {
            name: array[numbers].astype(np.float32 if name == "scores" else np.int32)
            for name, array in self._rows.items()
        }
