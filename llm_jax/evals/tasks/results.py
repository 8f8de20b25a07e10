"""Results of tasks: figures with their errors, 95% intervals, and what a guess scores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

Z = 1.959964
"""Standard normal quantile of 97.5%."""


@dataclass(frozen=True)
class Figure:
    """One measured figure of a task.

    Attributes:
      stderr: standard error of `value`; None where the harness has none.
      higher_is_better: None where the task does not say.
      chance: the value of a guess; None where it is not known.
      n: examples that have this figure.
    """

    value: float
    stderr: float | None
    higher_is_better: bool | None
    chance: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval; None without a standard error."""
        return interval(self.value, self.stderr, self.n, self.higher_is_better is not None)

    @property
    def above_chance(self) -> bool | None:
        """Whether it is better than a guess, and the 95% interval excludes the guess; None where
        the guess, the interval or the better direction is not known."""
        if self.chance is None or self.interval is None or self.higher_is_better is None:
            return None
        low, high = self.interval
        return low > self.chance if self.higher_is_better else high < self.chance

    def report(self) -> dict[str, Any]:
        """The figure as JSON has it; null stands for what is not a finite number."""
        told = asdict(self) | {"interval": self.interval, "above_chance": self.above_chance}
        return told if math.isfinite(self.value) else told | {"value": None}


@dataclass(frozen=True)
class TaskResult:
    """The result of one task, or of a group of tasks.

    Attributes:
      n: examples that were scored.
      of: examples that the task has.
      few_shot: solved examples before each question.
      version: of the task; None if its file says none.
      truncated: requests that were longer than the model's context and lost their beginning.
      shortened: answers that could be shorter than the task allows, since the context is short.
      metrics: by name, and by `name/filter` where a task reads answers in several ways.
      joined: answers whose first characters share a token with the end of their question.
      unlabelled: examples of which no choice is the right one; they count as wrong.
    """

    n: int
    of: int
    few_shot: int | None
    version: str | None
    truncated: int
    shortened: int
    metrics: dict[str, Figure]
    joined: int = 0
    unlabelled: int = 0


@dataclass(frozen=True)
class TaskResults:
    """The results of tasks and of the groups that were asked for, by name.

    Attributes:
      samples: of each task, each example with what was asked, answered and counted; empty unless
        they were asked for.
    """

    tasks: dict[str, TaskResult]
    groups: dict[str, TaskResult] = field(default_factory=dict)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """The results as JSON has them, without the samples."""
        return {
            kind: {name: _plain(one) for name, one in getattr(self, kind).items()}
            for kind in ("tasks", "groups")
        }


def _plain(result: TaskResult) -> dict[str, Any]:
    return vars(result) | {"metrics": {k: one.report() for k, one in result.metrics.items()}}


def interval(value: float, stderr: float | None, n: int, share: bool) -> tuple[float, float] | None:
    """The 95% interval of a mean.

    The mean of n zeros and ones has Wilson's interval (Wilson 1927), which does not shrink to a
    point where all answers are right or all are wrong. All others have value ± 1.96 stderr.

    Args:
      stderr: standard error; None: there is no interval.
      n: examples.
      share: whether the figure may be a mean of zeros and ones; its standard error says if it is.
    """
    if stderr is None or not math.isfinite(value):
        return None
    if share and 0 <= value <= 1 and n > 1:
        binary = math.sqrt(value * (1 - value) / (n - 1))
        if math.isclose(binary, stderr, rel_tol=1e-6, abs_tol=1e-9):
            return _wilson(value, n)
    return value - Z * stderr, value + Z * stderr


def _wilson(p: float, n: int) -> tuple[float, float]:
    scale = 1 + Z * Z / n
    middle = (p + Z * Z / (2 * n)) / scale
    half = Z / scale * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return max(middle - half, 0.0), min(middle + half, 1.0)
