"""Models that the words of a command line name: what is wrong is found before one is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import RunConfig, UserError, generative_of, read_config
from llm_jax.runs.claim import writer_of
from llm_jax.runs.places import folder_and_step, saved_steps

NAME = re.compile(r"[\w.@:-][\w.@:/-]*")


@dataclass(frozen=True)
class Place:
    """A model that is asked for: `NAME=FOLDER@STEP`.

    Attributes:
      step: None: the newest, or a Hugging Face folder.
      note: what a reader should know of it; empty: nothing.
    """

    name: str
    folder: Path
    step: int | None
    note: str


def places_of(words: Sequence[str], what: str = "serve") -> list[Place]:
    """The models that words name; none is loaded.

    Args:
      what: they are for, as errors say it.

    Raises:
      UserError: a name comes twice, there is no model in a folder, or it continues no text.
    """
    found = [_place(word, what) for word in words]
    for place in found:
        if sum(other.name == place.name for other in found) > 1:
            raise UserError(
                f"Two models would be called {place.name!r}: give them names, as in "
                f"first={place.folder}."
            )
    return found


def draft_place(word: str | None) -> Place | None:
    """The model that is to draft tokens, if there is one; raises as `places_of` does."""
    return None if word is None else places_of([word], "--draft")[0]


def _place(word: str, what: str) -> Place:
    name, equals, rest = word.partition("=")
    if not equals or Path(word).exists():
        name, rest = "", word
    elif not NAME.fullmatch(name):
        raise UserError(f"A model cannot be called {name!r}: use letters, digits and . _ - : @ /.")
    if not rest:
        raise UserError(f"{word!r} names no folder: write NAME=FOLDER.")
    folder, step = folder_and_step(rest)
    if not name:
        name = folder.resolve().name + (f"@{step}" if step is not None else "")
        if not NAME.fullmatch(name):
            raise UserError(f"The model of {rest!r} needs a name: write NAME={rest}.")
    if (folder / "run.json").is_file():
        return Place(name, folder, step, _run_note(folder, step, what))
    if not (folder / "config.json").is_file():
        raise UserError(
            f"There is no model in {str(folder)!r}: give a run's folder, or a Hugging Face folder."
        )
    if step is not None:
        raise UserError(f"{str(folder)!r} is not a run: it has no step {step}.")
    return Place(name, folder, None, "")


def _run_note(folder: Path, step: int | None, what: str) -> str:
    """Checks a run without loading it; says whether it is being written."""
    config = read_config(folder / "run.json", RunConfig)
    generative_of(config.model, what)
    steps = saved_steps(folder)
    if not steps:
        raise UserError(f"The run in {str(folder)!r} has no checkpoint yet: train it first.")
    if step is not None and step not in steps:
        known = ", ".join(map(str, steps))
        raise UserError(f"The run in {str(folder)!r} has no step {step}: it has {known}.")
    if writer := writer_of(folder, inside=True):
        return (
            f"{folder} is being written by {writer}: step {step or steps[-1]:,} is served, and "
            "stays what it is."
        )
    return ""
