"""What each step of a run reads, as stages. Each has one batch size and one order of the text.

A new stage begins where a ramp doubles the batch, where a mixture changes its shares, where a start
changed what is read (the run's history), and where a rollback left batches out. It continues
reading where the one before ended, each source for itself. Small batches lose nothing early in
training, where gradients agree (McCandlish et al. 2018); Llama 3 (2024, section 3.4.1) doubled its
batch twice. A ramp doubles the number of micro-batches, not their size, so all its stages need the
same memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from llm_jax.config import DataConfig, RunConfig
from llm_jax.data.mixed_batches import Reading
from llm_jax.data.mixture import Portion, portions
from llm_jax.data.order import Order
from llm_jax.runs.history import Entry, History, Text
from llm_jax.runs.rollbacks import Rollback


@dataclass(frozen=True)
class Segment:
    """Steps with one batch size, one blend of sources, and one order of each."""

    entry: Entry
    """The line of the history in force."""
    text: Text
    portion: int
    """Number of the mixture's stage, from 0."""
    first: int
    end: int
    """`first` is the first step, counted from 0; `end` is the first step after the segment."""
    sequences: int
    """Of a batch."""
    reading: Reading
    offset: int
    """Step n begins with row n · sequences + offset of the reading."""

    def places(self, step: int) -> tuple[int, ...]:
        """Rows of each source's order that are behind the run when `step` steps are done."""
        return self.reading.places(step * self.sequences + self.offset)


@dataclass(frozen=True)
class Stage:
    config: RunConfig
    """The run's config with this stage's batch size and without a ramp."""
    first: int
    end: int
    reading: Reading
    offset: int
    """As of `Segment`."""


def stages(
    config: RunConfig, history: History, rollbacks: list[Rollback], text: Text
) -> list[Stage]:
    """The stages from the last line of `history` on, whose config is `config`.

    Args:
      text: what the run reads now. Lines of the history without one have read the same.
    """
    last = history.entries[-1]
    return [
        Stage(_alone(config, one.sequences), one.first, one.end, one.reading, one.offset)
        for one in segments(history, rollbacks, text, config.steps)
        if one.entry is last
    ]


def segments(
    history: History, rollbacks: list[Rollback], text: Text, steps: int
) -> Iterator[Segment]:
    """All segments of the first `steps` steps, in their order."""
    skipped = [one for back in rollbacks for one in left_out(back, history.at(back.step).data)]
    ends = [entry.step for entry in history.entries[1:]] + [steps]
    read = _Read()
    for entry, end in zip(history.entries, ends, strict=True):
        data, here = entry.data, entry.text or text
        if len(here.parts) != len(data.folders):
            continue  # an older line, without a text, before the run began to read a mixture
        read.turn_to(here, data)
        sizes = [part.tokens for part in here.parts]
        for number, portion in _within(portions(data, entry.steps, sizes), entry, end):
            read.blend(portion)
            for first, last in pairwise(_boundaries(portion, data, skipped)):
                read.row += sum(count for step, count in skipped if step == first)
                size = data.sequences(first + 1) - data.sequences(first)
                offset = read.row - first * size
                reading = read.reading()
                yield Segment(entry, here, number, first, last, size, reading, offset)
                read.row += size * (last - first)


@dataclass
class _Read:
    """How far each text has been read. `row` is that of the blend in force."""

    orders: dict[str, tuple[Order, int]] = field(default_factory=dict)
    """Fingerprint of a text → its order, and the rows of it that are read."""
    now: tuple[str, ...] = ()
    """Fingerprints of the sources that are read now."""
    portion: Portion | None = None
    starts: tuple[int, ...] = ()
    row: int = 0

    def turn_to(self, text: Text, data: DataConfig) -> None:
        """The sources of `text`, in the order that `data` asks for, are read from here on."""
        changed = self.now != tuple(part.fingerprint for part in text.parts)
        if not changed:
            orders = [self.orders[name][0] for name in self.now]
            changed = any((o.seq_len, o.seed) != (data.seq_len, data.seed) for o in orders)
        if not changed:
            return
        self._settle()
        for part in text.parts:
            order, row = self.orders.get(part.fingerprint, (None, 0))
            if order is None:
                order = Order(part.tokens, data.seq_len, data.seed)
            elif (order.seq_len, order.seed) != (data.seq_len, data.seed):
                order, row = order.changed(row, data.seq_len, data.seed), 0
            self.orders[part.fingerprint] = order, row
        self.now = tuple(part.fingerprint for part in text.parts)

    def blend(self, portion: Portion) -> None:
        """The shares of `portion` are in force from here on."""
        if self.portion is not None and self.portion.blend == portion.blend:
            return
        self._settle()
        self.portion = portion
        rows = [self.orders[name][1] for name in self.now]
        # A dataset alone has the same numbers of rows in its order and in its blend.
        self.row = rows[0] if len(rows) == 1 else 0
        self.starts = tuple(0 if len(rows) == 1 else row for row in rows)

    def reading(self) -> Reading:
        assert self.portion is not None
        orders = tuple(self.orders[name][0] for name in self.now)
        return Reading(self.portion.blend, orders, self.starts)

    def _settle(self) -> None:
        """Notes how far the sources have been read, and ends the blend."""
        if self.portion is None:
            return
        places = self.reading().places(self.row)
        for name, place in zip(self.now, places, strict=True):
            self.orders[name] = self.orders[name][0], place
        self.portion = None


def _within(made: list[Portion], entry: Entry, end: int) -> Iterator[tuple[int, Portion]]:
    """The parts of the portions that lie between the entry's step and `end`, with their numbers."""
    for number, portion in enumerate(made):
        # The run may go on after the steps of this entry's config.
        stop = end if portion is made[-1] else min(portion.end, end)
        first = max(portion.first, entry.step)
        if first < stop:
            yield number, Portion(first, stop, portion.blend)


def _boundaries(portion: Portion, data: DataConfig, skipped: list[tuple[int, int]]) -> list[int]:
    steps = [step for step, _ in (*data.stages, *skipped)]
    inner = {step for step in steps if portion.first < step < portion.end}
    return sorted({portion.first, *inner, portion.end})


def _alone(config: RunConfig, size: int) -> RunConfig:
    micro = config.data.batch_size // config.compute.accumulate
    return replace(
        config,
        data=replace(config.data, batch_size=size, ramp=None),
        compute=replace(config.compute, accumulate=max(size // micro, 1)),
    )


def left_out(back: Rollback, data: DataConfig) -> list[tuple[int, int]]:
    """(step, sequences): how many sequences `back` leaves out, and before which step."""
    if back.sequences is not None:
        return [(back.step, back.sequences)]
    # An older record counts batches; later doublings of a ramp made them larger.
    found, before = list[tuple[int, int]](), 0
    for first, size in data.stages:
        if first <= back.step:
            found = [(back.step, back.batches * size)]
        else:
            found.append((first, back.batches * (size - before)))
        before = size
    return found
