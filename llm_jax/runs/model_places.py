"""Models that the words of a command line name: what is wrong is found before one is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llm_jax.config import UserError
from llm_jax.runs.claim import writer_of
from llm_jax.runs.places import folder_and_step, saved_steps

NAME = re.compile(r"[\w.@:-][\w.@:/-]*")
DOES = {
    "serve": "is served, and stays what it is",
    "generate": "makes the texts",
    "--draft": "drafts tokens, and stays what it is",
}
"""What asks for a model → what its checkpoint does, for the note of a run that is being written."""


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
    note: str = ""

    @property
    def is_run(self) -> bool:
        """Whether it is a run; otherwise it is a Hugging Face folder."""
        return is_run(self.folder)


def is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def is_hugging_face(folder: Path) -> bool:
    return not is_run(folder) and (folder / "config.json").is_file()


def places_of(words: Sequence[str]) -> list[Place]:
    """The models that are to be served, `[NAME=]FOLDER[@STEP]` each; none is loaded.

    Raises:
      UserError: a name comes twice, or there is no model in a folder.
    """
    found = [_named(word) for word in words]
    for place in found:
        if sum(other.name == place.name for other in found) > 1:
            raise UserError(
                f"Two models would be called {place.name!r}: give them names, as in "
                f"first={place.folder}."
            )
    return found


def place_of(word: str, what: str, step: int | None = None) -> Place:
    """The model that `FOLDER[@STEP]` names; it is not loaded.

    Args:
      what: asks for it, one of `DOES`.
      step: that was given apart from the word.

    Raises:
      UserError: there is no model in the folder, or no such step.
    """
    folder, named = folder_and_step(word)
    if step is not None and named is not None and step != named:
        raise UserError(f"{word!r} is step {named}, and --step is {step}: give one of them.")
    step = named if step is None else step
    place = Place(folder.resolve().name + (f"@{named}" if named is not None else ""), folder, step)
    if place.is_run:
        return _of_run(place, what)
    if not is_hugging_face(folder):
        raise UserError(_nothing_in(folder))
    if step is not None:
        raise UserError(f"{str(folder)!r} is not a run: it has no step {step}.")
    return place


def draft_place(word: str | None) -> Place | None:
    """The model that is to draft tokens, if there is one; raises as `place_of` does."""
    return None if word is None else place_of(word, "--draft")


def _named(word: str) -> Place:
    name, equals, rest = word.partition("=")
    if not equals or Path(word).exists():
        name, rest = "", word
    elif not NAME.fullmatch(name):
        raise UserError(f"A model cannot be called {name!r}: use letters, digits and . _ - : @ /.")
    if not rest:
        raise UserError(f"{word!r} names no folder: write NAME=FOLDER.")
    place = place_of(rest, "serve")
    if name:
        return replace(place, name=name)
    if not NAME.fullmatch(place.name):
        raise UserError(f"The model of {rest!r} needs a name: write NAME={rest}.")
    return place


def _nothing_in(folder: Path) -> str:
    if folder.suffix == ".gguf" or any(folder.glob("*.gguf")):
        return (
            f"{str(folder)!r} is GGUF, which is for llama.cpp: give the run, or the Hugging Face "
            "folder, that it was made from."
        )
    return f"There is no model in {str(folder)!r}: give a run's folder, or a Hugging Face folder."


def _of_run(place: Place, what: str) -> Place:
    """Checks the step without loading it. Of a run that is being written, the newest step is fixed,
    and noted."""
    folder, step, steps = place.folder, place.step, saved_steps(place.folder)
    if not steps:
        raise UserError(f"The run in {str(folder)!r} has no checkpoint yet: train it first.")
    if step is not None and step not in steps:
        known = ", ".join(map(str, steps))
        raise UserError(f"The run in {str(folder)!r} has no step {step}: it has {known}.")
    if writer := writer_of(folder, inside=True):
        step = steps[-1] if step is None else step
        note = f"{folder} is being written by {writer}: step {step:,} {DOES[what]}."
        return replace(place, step=step, note=note)
    return place
