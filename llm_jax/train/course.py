"""What each step of a run reads, as stages. Each has one batch size and one order of the text.

A new stage begins where a ramp doubles the batch, where a start changed what is read (the run's
history), and where a rollback left batches out. It continues reading where the one before ended.
Small batches lose nothing early in training, where gradients agree (McCandlish et al. 2018); Llama
3 (2024, section 3.4.1) doubled its batch twice. A ramp doubles the number of micro-batches, not
their size, so all its stages need the same memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from llm_jax.config import DataConfig, RunConfig
from llm_jax.data.order import Order
from llm_jax.runs.history import Entry, History, Text
from llm_jax.runs.rollbacks import Rollback


@dataclass(frozen=True)
class Stage:
    config: RunConfig
    """The run's config with this stage's batch size and without a ramp."""
    first: int
    end: int
    """`first` is the first step, counted from 0; `end` is the first step after the stage."""
    order: Order
    offset: int
    """Step n begins with row n · batch size + offset of the order."""


def stages(
    config: RunConfig, history: History, rollbacks: list[Rollback], text: Text
) -> list[Stage]:
    """The stages from the last line of `history` on, whose config is `config`.

    Args:
      text: the dataset's text. Lines of the history with another text have read nothing of it.
    """
    skipped = [one for back in rollbacks for one in left_out(back, history.at(back.step).data)]
    order, row, made = None, 0, list[Stage]()
    ends = [entry.step for entry in history.entries[1:]] + [config.steps]
    for entry, end in zip(history.entries, ends, strict=True):
        if entry.text not in (None, text):
            continue
        data = entry.data
        if order is None:
            order = Order(text.tokens, data.seq_len, data.seed)
        elif (order.seq_len, order.seed) != (data.seq_len, data.seed):
            order, row = order.changed(row, data.seq_len, data.seed), 0
        made = []
        for first, last in pairwise(_boundaries(entry, data, skipped, end)):
            row += sum(sequences for step, sequences in skipped if step == first)
            size = data.sequences(first + 1) - data.sequences(first)
            made.append(Stage(_alone(config, size), first, last, order, row - first * size))
            row += size * (last - first)
    return made


def _boundaries(
    entry: Entry, data: DataConfig, skipped: list[tuple[int, int]], end: int
) -> list[int]:
    steps = [step for step, _ in (*data.stages, *skipped)]
    inner = {step for step in steps if entry.step < step < end}
    return sorted({entry.step, *inner, max(end, entry.step)})


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
