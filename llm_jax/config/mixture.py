"""A mixture: several datasets that a run reads together, in shares that may change on its way."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

from llm_jax.config.errors import ConfigError, nearest, require

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class MixtureSource:
    """A dataset of a mixture."""

    name: str
    """Name in the stages, the metrics and the lineage: letters, digits, `_`, `.` and `-`."""
    path: str
    """Folder of the dataset. All datasets of a mixture have the same tokenizer."""
    max_epochs: float | None = None
    """Most times that the run may read it. A run that would read more is refused. None: no
    limit."""

    def __post_init__(self) -> None:
        require(
            NAME.fullmatch(self.name) is not None,
            f"data.mixture has a source named {self.name!r}: use letters, digits, '_', '.' and "
            "'-', at most 64.",
        )
        require(self.path != "", f"data.mixture: source {self.name!r} has no path: name a folder.")
        require(
            self.max_epochs is None or 0 < self.max_epochs < math.inf,
            f"data.mixture: source {self.name!r} has max_epochs {self.max_epochs}: it must be "
            "above 0.",
        )


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much a stage reads of one source: a weight, or tokens, or epochs."""

    source: str
    """Name of the source."""
    weight: float | None = None
    """Share of what `tokens` and `epochs` leave, relative to the other weights of the stage. 0: the
    source is not read, but its validation loss is measured."""
    tokens: int | None = None
    """Tokens in this stage."""
    epochs: float | None = None
    """Times that this stage reads the source."""

    def __post_init__(self) -> None:
        what = f"data.mixture: source {self.source!r} of a stage"
        given = [name for name in ("weight", "tokens", "epochs") if getattr(self, name) is not None]
        require(
            len(given) == 1,
            f"{what} has {' and '.join(given) or 'no amount'}: give one of weight, tokens, epochs.",
        )
        value = getattr(self, given[0])
        require(
            math.isfinite(value) and (value > 0 or (value == 0 and given == ["weight"])),
            f"{what} has {given[0]} {value:g}: it must be "
            f"{'0 or more' if given == ['weight'] else 'above 0'}.",
        )


@dataclass(frozen=True, kw_only=True)
class MixtureStage:
    """A part of the run with its own shares."""

    start: float = 0.0
    """Share of the run's steps that are done when the stage begins: 0 for the first, 0.9 for the
    last tenth."""
    read: tuple[Amount, ...]
    """What the stage reads. A source that is not named is not read."""

    def __post_init__(self) -> None:
        require(
            0 <= self.start < 1,
            f"data.mixture has a stage that starts at {self.start:g} of the run: give a share from "
            "0 to below 1, since a later stage is beyond the run.",
        )
        names = [amount.source for amount in self.read]
        for name in names:
            require(
                names.count(name) == 1,
                f"data.mixture: the stage at {self.start:g} names {name!r} twice: keep one.",
            )
        weights = [a.weight for a in self.read if a.weight is not None]
        require(
            any(weights) or len(weights) < len(names),
            f"data.mixture: the weights of the stage at {self.start:g} are all 0: give one source "
            "a weight above 0.",
        )


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Datasets that are read together. Sequences of a batch come from all of them, in proportions
    that are exact to one sequence over any 1,000."""

    sources: tuple[MixtureSource, ...]
    """The datasets."""
    stages: tuple[MixtureStage, ...]
    """What is read when, in the order of `start`."""

    def __post_init__(self) -> None:
        require(len(self.sources) > 0, "data.mixture.sources is empty: name a dataset.")
        require(len(self.stages) > 0, "data.mixture.stages is empty: give one stage.")
        for field in ("name", "path"):
            values = [getattr(source, field) for source in self.sources]
            for value in values:
                require(
                    values.count(value) == 1,
                    f"data.mixture has two sources with the {field} {value!r}: keep one of them.",
                )
        known = self.names
        for stage in self.stages:
            for amount in stage.read:
                if amount.source not in known:
                    raise ConfigError(
                        f"data.mixture: the stage at {stage.start:g} reads {amount.source!r}, "
                        f"which is not one of the sources: {nearest(amount.source, known)}"
                    )
        named = {amount.source for stage in self.stages for amount in stage.read}
        for name in known:
            require(
                name in named,
                f"data.mixture: no stage reads the source {name!r}: remove it, or give it the "
                "weight 0 to measure its loss.",
            )
        starts = [stage.start for stage in self.stages]
        require(
            starts[0] == 0 and all(a < b for a, b in pairwise(starts)),
            f"data.mixture has stages that start at {', '.join(f'{s:g}' for s in starts)}: the "
            "first must start at 0, and each later than the one before.",
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(source.name for source in self.sources)

    def fingerprint(self, prints: Mapping[str, str]) -> str:
        """Digest of the fingerprints of the datasets, by name, and of the stages."""
        stages = [asdict(stage) for stage in self.stages]
        content = json.dumps([dict(prints), stages], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def first_steps(self, steps: int) -> tuple[int, ...]:
        """Step, counted from 0, at which each stage of a run of `steps` steps begins."""
        return tuple(round(stage.start * steps) for stage in self.stages)

    def check_stages(self, steps: int) -> None:
        """Raises `ConfigError` unless each stage has a step of a run of `steps` steps."""
        firsts = (*self.first_steps(steps), steps)
        for stage, first, end in zip(self.stages, firsts[:-1], firsts[1:], strict=True):
            require(
                first < end,
                f"data.mixture: the stage at {stage.start:g} has no step in a run of {steps} steps"
                f"{', since it begins beyond the run' if first >= steps else ''}: start it "
                "earlier, or give the run more steps.",
            )
