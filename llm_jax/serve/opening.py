"""From the words of a command line to models: what is wrong is found before one is loaded."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import RunConfig, UserError, generative_of, nearest, read_config, read_text
from llm_jax.infer.chat_template import ChatTemplate, from_tokenizer
from llm_jax.infer.device_split import Split
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.language_model import load_model
from llm_jax.runs.claim import writer_of
from llm_jax.runs.places import folder_and_step, saved_steps
from llm_jax.serve.served import Served

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


def places_of(words: Sequence[str]) -> list[Place]:
    """Raises `UserError` if a name comes twice, or there is no model in a folder."""
    found = [_place(word) for word in words]
    for place in found:
        if sum(other.name == place.name for other in found) > 1:
            raise UserError(
                f"Two models would be called {place.name!r}: give them names, as in "
                f"first={place.folder}."
            )
    return found


def _place(word: str) -> Place:
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
        return Place(name, folder, step, _run_note(folder, step))
    if not (folder / "config.json").is_file():
        raise UserError(
            f"There is no model in {str(folder)!r}: give a run's folder, or a Hugging Face folder."
        )
    if step is not None:
        raise UserError(f"{str(folder)!r} is not a run: it has no step {step}.")
    return Place(name, folder, None, "")


def _run_note(folder: Path, step: int | None) -> str:
    """Checks a run without loading it; says whether it is being written."""
    config = read_config(folder / "run.json", RunConfig)
    generative_of(config.model, "serve")
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


def check_split(places: Sequence[Place], split: Split) -> None:
    """Raises `UserError` if a run cannot be split so; a Hugging Face folder is asked when it is
    read."""
    for place in places:
        if (file := place.folder / "run.json").is_file():
            split.mesh(read_config(file, RunConfig))


def templates_of(words: Sequence[str], places: Sequence[Place]) -> dict[str, ChatTemplate]:
    """Name of a model → its template, of words that are `FILE` (for all) or `NAME=FILE`."""
    names = [place.name for place in places]
    found: dict[str, ChatTemplate] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals or Path(word).exists():
            found |= dict.fromkeys(names, _template(Path(word)))
        elif name not in names:
            raise UserError(f"--chat-template {word}: there is no model {name!r}: "
                            f"{nearest(name, names)}")  # fmt: skip
        else:
            found[name] = _template(Path(file))
    return found


def _template(path: Path) -> ChatTemplate:
    try:
        return ChatTemplate(read_text(path), str(path))
    except UserError as error:
        raise UserError(f"--chat-template: {error}") from None


def load(
    place: Place,
    template: ChatTemplate | None,
    engine: EngineSettings,
    *,
    draft: Place | None = None,
    verify: bool = True,
    trust_code: bool = False,
    tensor: int | None = None,
) -> Served:
    """Loads a model and compiles its programs.

    Args:
      template: in place of the model's own.
      draft: a smaller model that drafts tokens for it.
      tensor: devices that share each matrix; None: as memory needs.

    Raises:
      UserError: it cannot be loaded, or cannot generate.
    """
    read = functools.partial(load_model, verify=verify, trust_code=trust_code)
    split = Split(tensor, engine.slots, engine.max_len)
    model = read(place.folder, place.step, split=split)
    generative_of(model.config, "serve")
    # A draft is on the devices of the model.
    mesh = model.mesh
    beside = None if mesh is None else dataclasses.replace(split, tensor=mesh.shape["tensor"])
    helper = read(draft.folder, draft.step, split=beside) if draft else None
    made = Engine(model, engine, draft=helper)
    made.warm_up()
    # What was read is free from here on: embeddings take the engine's parameters too.
    run = dataclasses.replace(model.run, model=made.config)
    return Served(
        name=place.name,
        place=str(place.folder),
        model=dataclasses.replace(model, run=run, params=made.params),
        engine=made,
        template=template or from_tokenizer(model.tokenizer),
        context=made.max_len,
    )
