"""Names in `metrics.jsonl`: of the figures of one source, and of records of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOSS_OF = "loss/"
BITS_PER_BYTE_OF = "bits_per_byte/"
"""These, and the source's name, are names of figures."""
TASK = "task"
"""The `split` of a record with scores, whose figures are named `TASK/FIGURE`."""
STDERR = "_stderr"
"""The name of a figure with this at its end is that of its standard error."""
EXAMPLES = "_examples"
"""With this, of the number of examples that have it, where not all of the task's have."""
VERSION = "version"
"""The version of a task, a text: `TASK/version`."""
CHANCE, COUNT, SHOTS = "chance", "n", "few_shot"
"""Of a task: the value of its first figure for a guess, the number of its examples, and how many
solved ones stood before each."""
TRUNCATED, SHORTENED, JOINED, UNLABELLED = FLAWS = (
    "truncated", "shortened", "joined", "unlabelled",
)  # fmt: skip
"""Of a task, where they are not 0: requests that were longer than the model's context and lost
their beginning, answers that could be shorter than the task allows, answers whose first characters
share a token with the question, and questions without a right answer among their choices."""
SPENT, SHARE, FAILED = "seconds", "time_share", "failed"
"""Of a record with scores: seconds that they took, the share of the run's time that all scores
took so far, and the number of tasks that failed."""
KNOWN = ("split", "step", "tokens", "loss", "bits_per_byte")


def own_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an objective's own (`accuracy`, …) among those of a held-out record."""
    names = (name for name in record if name not in KNOWN and "/" not in name)
    return {name: record[name] for name in names if isinstance(record[name], float)}
