"""From the words of a command line to models: what is wrong is found before one is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_jax.config import RunConfig, UserError, generative_of, nearest, read_config, read_text
from llm_jax.infer.chat_template import ChatTemplate, from_tokenizer
from llm_jax.infer.device_split import Split
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.language_model import load_draft, load_model
from llm_jax.runs.model_places import Place
from llm_jax.serve.served import Served


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
    split = Split(tensor, engine.slots, engine.max_len)
    trust: dict[str, Any] = {"verify": verify, "trust_code": trust_code}
    model = load_model(place.folder, place.step, split=split, **trust)
    generative_of(model.config, "serve")
    helper = load_draft(draft, model, split, **trust) if draft else None
    made = Engine(model, engine, draft=helper, frees=True)
    made.warm_up()
    # Embeddings take the engine's parameters too.
    run = dataclasses.replace(model.run, model=made.config)
    return Served(
        name=place.name,
        place=str(place.folder),
        model=dataclasses.replace(model, run=run, params=made.params),
        engine=made,
        template=template or from_tokenizer(model.tokenizer),
        context=made.max_len,
    )
