"""What a run reads, and in which batches."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import check_seed, positive, require
from llm_jax.config.mixture import MixtureConfig

TokenizerKind = Literal["bpe", "unigram", "byte-level"]
"""Tokenizers that can be trained."""


def span_lengths(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """Tokens of the source and of the target that a window of `length` becomes, with their ends.

    Each of n spans is one sentinel in the source, and follows its sentinel in the target (Raffel et
    al. 2020, §3.3.4).
    """
    hidden, spans = spans_of(length, rate, mean_span)
    return length - hidden + spans + 1, hidden + spans + 1


def spans_of(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """How many tokens of a window are hidden, and in how many spans; at least one stays."""
    hidden = min(max(round(length * rate), 1), length - 1)
    return hidden, min(max(round(hidden / mean_span), 1), length - hidden)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the model reads: a dataset folder that `llm-jax data build` wrote, or several."""

    path: str = "data/stdlib"
    """Folder of the dataset; empty if there is a mixture."""
    mixture: MixtureConfig | None = None
    """Several datasets that are read together, in place of `path`."""
    seq_len: int = 1024
    """Tokens per sequence."""
    batch_size: int = 8
    """Sequences per optimizer step, over all hosts and micro-batches."""
    ramp: str | None = None
    """`sequences:steps` of a smaller batch at the beginning, such as `64:3000`: the batch doubles
    at equal intervals within these steps, from these sequences to `batch_size`. None: no ramp."""
    seed: int = 0
    """Seed of the data order. A step's batch follows from it, the step, and the run's history."""
    mask_rate: float = 0.15
    """Share of the tokens that the objectives `masked` and `spans` hide."""
    mean_span: float = 3.0
    """Mean number of tokens in one span that the objective `spans` hides."""

    def __post_init__(self) -> None:
        positive("data", self, "seq_len", "batch_size")
        check_seed("data", self.seed)
        require(
            0 < self.mask_rate < 1,
            f"data.mask_rate is {self.mask_rate}: give a share above 0 and below 1.",
        )
        require(
            1 <= self.mean_span < math.inf,
            f"data.mean_span is {self.mean_span}: give a number from 1 on.",
        )
        require(
            self.path != "" or self.mixture is not None,
            "data.path is empty: name a dataset's folder.",
        )
        require(
            self.path == "" or self.mixture is None,
            f"data.path is {self.path!r}, but data.mixture names what is read: make data.path '' "
            "(an empty string), or leave the mixture out.",
        )
        if self.ramp is None:
            return
        require(
            re.fullmatch(r"[1-9]\d{0,17}:[1-9]\d{0,17}", self.ramp) is not None,
            f"data.ramp is {self.ramp!r}: write sequences:steps, such as 64:3000.",
        )
        start, doublings = self.ramp_from or 0, self._doublings
        require(
            doublings > 0 and start << doublings == self.batch_size,
            f"data.ramp is {self.ramp!r}, but {start} does not double to data.batch_size = "
            f"{self.batch_size}: begin with a half, a quarter, an eighth … of batch_size.",
        )
        require(
            self.ramp_steps >= doublings,
            f"data.ramp is {self.ramp!r}, with fewer steps than the {doublings} doublings from "
            f"{start} to {self.batch_size} sequences: give it {doublings} or more.",
        )

    @property
    def folders(self) -> dict[str, str]:
        """Name of each source in a mixture → its folder; a dataset alone has the name ""."""
        if self.mixture is None:
            return {"": self.path}
        return {source.name: source.path for source in self.mixture.sources}

    @property
    def ramp_from(self) -> int | None:
        """Sequences in the first step; None without a ramp."""
        return None if self.ramp is None else int(self.ramp.split(":")[0])

    @property
    def ramp_steps(self) -> int:
        """Number of first steps whose batch is smaller than `batch_size`."""
        return 0 if self.ramp is None else int(self.ramp.split(":")[1])

    @property
    def _doublings(self) -> int:
        return (self.batch_size // max(self.ramp_from or self.batch_size, 1)).bit_length() - 1

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """(step, sequences) of each stage: its first step, counted from 0, and its batch size."""
        doublings = self._doublings
        return tuple(
            (self.ramp_steps * k // max(doublings, 1), self.batch_size >> (doublings - k))
            for k in range(doublings + 1)
        )

    def sequences(self, steps: int) -> int:
        """Total sequences read in the first `steps` steps."""
        (_, start), *doubled = self.stages
        added = [size // 2 * max(steps - first, 0) for first, size in doubled]
        return start * steps + sum(added)
