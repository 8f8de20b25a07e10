"""What a step of a recipe is: of single documents, or of all documents compared with each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from llm_jax.data.curate.draft import Check, Draft

Checks = Iterator[Check]
"""The checks of a step on a document, in order: the first that does not hold drops it."""


class Ready(Protocol):
    """A step with its files loaded."""

    def check(self, draft: Draft) -> Checks: ...


class Step:
    """A step on single documents; subclasses are frozen dataclasses with a literal `kind`."""

    kind: str

    def files(self) -> tuple[str, ...]:
        """Paths that the step reads, besides the documents."""
        return ()

    def prepare(self, folder: Path) -> None:
        """Called once, before any document: writes to `folder` what tasks are to load.

        Raises:
          UserError: a package or a file that the step needs is missing or damaged.
        """

    def ready(self, folder: Path) -> Ready:
        """The step as a task applies it; `folder` is that of `prepare`."""
        return self

    def check(self, draft: Draft) -> Checks:
        """Measures the document, and may change it after the last check."""
        raise NotImplementedError


class JointStep(Step):
    """A step that compares all documents. Each gives rows, all rows are resolved together, and each
    document is then checked with the answers to its rows."""

    columns: int
    """uint64 numbers of a row."""

    def rows(self, draft: Draft) -> np.ndarray:
        """(rows, columns) uint64."""
        raise NotImplementedError

    def resolve(self, tables: list[np.ndarray], numbers: np.ndarray) -> np.ndarray:
        """Answers to all rows.

        Args:
          tables: the rows of consecutive documents, which may be memory maps.
          numbers: (rows,) int64, the document that each row is of.

        Returns:
          (rows, 2) int64.
        """
        raise NotImplementedError

    def check_answers(self, draft: Draft, answers: np.ndarray) -> Checks:
        """As `check`; `answers` are those to the document's rows."""
        raise NotImplementedError
