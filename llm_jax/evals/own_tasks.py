"""Evaluations of your own: Python functions of a model that return figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_jax.config import UserError
from llm_jax.config.extensions import load_part

if TYPE_CHECKING:
    from llm_jax.language_model import LanguageModel


def run_task(name: str, model: LanguageModel) -> dict[str, float]:
    """The figures that the task `name` returns for `model`.

    Raises:
      ConfigError: there is no such task.
      UserError: it fails, or returns something other than finite numbers by name.
    """
    task = load_part("--task", name)
    try:
        figures = task(model)
    except UserError:
        raise
    except Exception as error:  # whatever the code raises
        raise UserError(
            f"--task {name} failed ({type(error).__name__}: {error}): fix its code."
        ) from error
    if not isinstance(figures, dict) or not all(map(_is_figure, figures.items())):
        raise UserError(f"--task {name} returns {figures!r}: return finite numbers by name.")
    return {key: float(value) for key, value in figures.items()}


def _is_figure(item: tuple[object, object]) -> bool:
    name, value = item
    try:
        return isinstance(name, str) and math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
