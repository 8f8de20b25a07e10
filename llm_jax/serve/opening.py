"""From the words of a command line to models: what is wrong is found before one is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, generative_of, nearest, read_text
from llm_jax.convert.describe import Described, describe
from llm_jax.infer.chat_template import ChatTemplate, from_tokenizer
from llm_jax.infer.device_split import Split
from llm_jax.infer.engine.engine import Engine, longest_text
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.infer.engine.speculative_batch import check_speculation, check_tokenizers
from llm_jax.language_model import load_described
from llm_jax.runs.model_places import Place
from llm_jax.serve.served import Served


def looked_at(
    places: Sequence[Place], draft: Place | None, engine: EngineSettings, tensor: int | None
) -> tuple[list[Described], Described | None]:
    """The models and their draft, without their weights.

    Args:
      tensor: as of `load`.

    Raises:
      UserError: one cannot be served so.
    """
    models = [describe(place) for place in places]
    smaller = describe(draft) if draft else None
    for said in models:
        config = generative_of(said.architecture, "serve")
        max_len = longest_text(config.max_seq_len, engine.max_len)
        if tensor:
            Split(tensor, engine.slots, engine.max_len).mesh(said.run)
        if smaller:
            check_tokenizers(said.tokenizer, smaller.tokenizer)
            drafting = generative_of(smaller.architecture, "--draft")
            check_speculation(config, drafting, engine, max_len)
        elif engine.speculate:
            check_speculation(config, None, engine, max_len)
    return models, smaller


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
    said: Described,
    template: ChatTemplate | None,
    engine: EngineSettings,
    *,
    draft: Described | None = None,
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
    model = load_described(said, split=split, **trust)
    helper = load_described(draft, split=split, beside=model, **trust) if draft else None
    made = Engine(model, engine, draft=helper, frees=True)
    made.warm_up()
    # Embeddings take the engine's parameters too.
    run = dataclasses.replace(model.run, model=made.config)
    return Served(
        name=said.place.name,
        place=str(said.place.folder),
        model=dataclasses.replace(model, run=run, params=made.params),
        engine=made,
        template=template or from_tokenizer(model.tokenizer),
        context=made.max_len,
    )
