"""Quality by a classifier that the user has trained (`llm-jax data classifier`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llm_jax.config import require
from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.quality_model import QualityModel
from llm_jax.data.curate.step import Checks, Step


@dataclass(frozen=True, kw_only=True)
class Classifier(Step):
    """Keeps documents that the classifier in `file` takes for good ones.

    Attributes:
      min_score: least probability, from 0 to 1. The score stays with the document.
    """

    kind: Literal["classifier"] = "classifier"
    file: str
    min_score: float = 0.5

    def __post_init__(self) -> None:
        require(
            0 <= self.min_score <= 1,
            f"classifier.min_score is {self.min_score}: give a probability from 0 to 1.",
        )

    def files(self) -> tuple[str, ...]:
        return (self.file,)

    def prepare(self, folder: Path) -> None:
        QualityModel.load(self.file)

    def ready(self, folder: Path) -> Any:
        return _Ready(self, QualityModel.load(self.file))


@dataclass(frozen=True)
class _Ready:
    step: Classifier
    model: QualityModel

    def check(self, draft: Draft) -> Checks:
        score = self.model.score(draft.text)
        draft.notes["classifier"] = round(score, 4)
        yield Check("score of the classifier", score, self.step.min_score)
