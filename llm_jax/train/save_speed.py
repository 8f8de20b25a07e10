"""How fast a run saves, and how long a save may take.

Orbax notes in each checkpoint when its save began and ended. So the checkpoints that a run keeps
say how fast it saves, also after a restart and on other hosts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from llm_jax.config import UserError, read_json
from llm_jax.runs.slow_save import read_slow_save
from llm_jax.train.damage import saved_steps
from llm_jax.train.manifest import checkpoint_bytes
from llm_jax.train.state import State
from llm_jax.train.sums import NOTE

ASSUMED = 25e6
"""Bytes a second that each process saves until something is measured. A host writes several times
that to a bucket or a shared file system."""
SLACK = 4
"""A save may take that many times as long as the measured speed says: storage has bad minutes."""
SHORTEST = 600.0
"""Seconds that any save may take. Storage that answers nothing for minutes has been seen to come
back."""


@dataclass(frozen=True)
class SaveSpeed:
    """What is expected of a save. Equal in all processes.

    Attributes:
      share: bytes that a process saves, on average.
      rate: bytes a second that each process writes, hashes and commits.
      measured: whether `rate` is that of the run's checkpoints, else `ASSUMED`.
      deadline: seconds after which a save is given up.
    """

    share: float
    rate: float
    measured: bool
    deadline: int

    @property
    def seconds(self) -> float:
        """How long a save is expected to take."""
        return self.share / self.rate

    def __str__(self) -> str:
        source = "measured" if self.measured else "assumed: no earlier start has saved"
        return (
            f"{_mega(self.share)} MB per process at {_mega(self.rate)} MB/s ({source}), "
            f"deadline {self.deadline:,} s"
        )


@dataclass(frozen=True)
class Hold:
    """For how long a save held the loop, in seconds."""

    waiting: float
    """Until the save before it had ended."""
    copying: float
    """Until the state was in the host's memory, and all processes had begun."""


def _mega(number: float) -> str:
    return f"{number / 1e6:,.1f}" if number >= 1e6 else f"{number / 1e6:.2g}"


def save_speed(out: Path, abstract: State) -> SaveSpeed:
    """What to expect of saving `abstract` in the run's folder. All processes must call it."""
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))
    share = total / jax.process_count()
    rate, least = 0.0, 0
    if jax.process_index() == 0:
        rate = slowest_rate(out / "checkpoints") or 0.0
        late, newest = read_slow_save(out), saved_steps(out / "checkpoints")
        if late and late.step > max(newest, default=-1):
            least = 2 * late.seconds
    told = multihost_utils.broadcast_one_to_all(np.array([rate, least], np.float32))
    known, least = float(told[0]), int(told[1])
    rate = known or ASSUMED
    deadline = math.ceil(max(SHORTEST, SLACK * share / rate, least))
    return SaveSpeed(share, rate, known > 0, deadline)


def slowest_rate(folder: Path) -> float | None:
    """Bytes a second and process of the slowest save among the checkpoints in `folder`, whatever
    the number of processes that wrote it. None if none of them tells its times."""
    rates = [_rate(folder / str(step)) for step in saved_steps(folder)]
    return min(filter(None, rates), default=None)


def _rate(checkpoint: Path) -> float | None:
    """Bytes a second and process of one save."""
    try:
        note = read_json(checkpoint / NOTE)
        nanoseconds = note["commit_timestamp_nsecs"] - note["init_timestamp_nsecs"]
    except (UserError, KeyError, TypeError):
        return None  # Orbax could not read it either, or it is of a time before these notes
    size, writers = checkpoint_bytes(checkpoint), _writers(checkpoint)
    return size / writers / nanoseconds * 1e9 if size and nanoseconds > 0 else None


def _writers(checkpoint: Path) -> int:
    """Number of processes that wrote it."""
    return max(1, len(list((checkpoint / "params").glob("ocdbt.process_*"))))
