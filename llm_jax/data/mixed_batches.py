"""Batches whose sequences come from several datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_jax.data.batch import Rows
from llm_jax.data.batches import Batches, together
from llm_jax.data.blend import Blend
from llm_jax.data.order import Order

if TYPE_CHECKING:
    from llm_jax.data.dataset import TokenDataset


@dataclass(frozen=True, eq=False)
class Reading:
    """What each row of a part of a run reads.

    Attributes:
      blend: the source of each row.
      orders: order of the windows of each source.
      starts: row of the source's order that its first row of the blend reads.
    """

    blend: Blend
    orders: tuple[Order, ...]
    starts: tuple[int, ...]

    def places(self, row: int) -> tuple[int, ...]:
        """Row of each source's order that comes next when the rows before `row` are read."""
        return tuple(a + b for a, b in zip(self.starts, self.blend.before(row), strict=True))


class MixedBatches(Batches):
    """The batches of one host from several datasets; see `Batches`.

    Args:
      datasets: one for each source of `reading`, with the same tokenizer.
    """

    def __init__(
        self,
        datasets: Sequence[TokenDataset],
        reading: Reading,
        *,
        seq_len: int,
        batch_size: int,
        seed: int,
        host: int = 0,
        hosts: int = 1,
        offset: int = 0,
        prepare: Callable[[Rows, np.ndarray], Rows] | None = None,
    ) -> None:
        super().__init__(
            datasets[0],
            split="train",
            seq_len=seq_len,
            batch_size=batch_size,
            seed=seed,
            host=host,
            hosts=hosts,
            offset=offset,
            prepare=prepare,
        )
        self._reading = reading
        self._texts = [dataset.windows("train", seq_len) for dataset in datasets]
        self.windows = sum(text.windows for text in self._texts)

    def _unprepared(self, rows: np.ndarray) -> Rows:
        reading = self._reading
        source, number = reading.blend.split(rows)
        parts, places = list[Rows](), list[np.ndarray]()
        for i, (text, order) in enumerate(zip(self._texts, reading.orders, strict=True)):
            mine = np.flatnonzero(source == i)
            if len(mine):
                parts.append(text.shuffled(order, number[mine] + reading.starts[i]))
                places.append(mine)
        return together(parts, np.concatenate(places))
