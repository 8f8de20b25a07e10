"""The model that `plan --config` and `plan --from` name, read without JAX and without weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llm_jax.config import RunConfig, UserError, decoder_of, load, read_json

if TYPE_CHECKING:
    from llm_jax.laws.law import Recipe
    from llm_jax.plan.dataset_text import Text
    from llm_jax.plan.given import Given


def given_model(
    reference: str, *, weights: bool, recipe: Recipe | None, text: Text | None
) -> Given:
    """The model of a recipe, a run.json, a run's folder, or a Hugging Face folder or config.json.

    Args:
      weights: training begins with its weights.
      recipe: how the runs of the law were trained, None if it is not known.
      text: what is to be read.

    Raises:
      UserError: nothing has that name, or its architecture is not known.
    """
    from llm_jax.plan.given import Given

    path = Path(reference)
    if raw := _hugging_face(path):
        from llm_jax.convert.hf_config import from_hf

        return Given(name=reference, model=from_hf(raw), weights=weights)
    if weights and not (path / "run.json").is_file():
        raise UserError(
            f"--from is {reference!r}, which holds no weights: give a run's folder, or a Hugging "
            "Face folder; --config plans the same model from its beginning."
        )
    run = load(reference)
    read = _read_before(path, run, recipe, text) if weights else None
    return Given(
        name=reference,
        model=decoder_of(run.model, "A plan"),
        run=run,
        weights=weights,
        read_before=read,
    )


def _hugging_face(path: Path) -> dict | None:
    """The object in the config.json that `path` is or holds; None if it is none of transformers."""
    if path.is_dir() and not (path / "run.json").exists():
        path = path / "config.json"
    if not (path.suffix == ".json" and path.is_file()):
        return None
    raw = read_json(path)
    return raw if isinstance(raw, dict) and "model_type" in raw else None


def _read_before(
    folder: Path, run: RunConfig, recipe: Recipe | None, text: Text | None
) -> float | None:
    """Tokens that the newest checkpoint in `folder` has read, if they and those to come are of the
    text that the law was fitted on; else None."""
    from llm_jax.runs.history import read_history
    from llm_jax.runs.places import saved_steps

    steps = saved_steps(folder)
    if not steps:
        raise UserError(f"--from is {str(folder)!r}, a run without a checkpoint: train it first.")
    if recipe is None or text is None or text.fingerprint != recipe.fingerprint:
        return None
    history = read_history(folder, run)
    texts = {entry.fingerprint for entry in history.entries}
    if history.parent or texts != {recipe.fingerprint}:
        return None
    return float(history.tokens(max(steps)))
