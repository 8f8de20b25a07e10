"""Chat templates: from messages to the text that a model was tuned on.

A template is a Jinja program that came with the tokenizer. It runs in Jinja's sandbox: it reaches
no attributes of Python's own and changes nothing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from llm_jax.config import UserError
from llm_jax.data.tokenizers import Tokenizer

FILE, SETTINGS = "chat_template.jinja", "tokenizer_config.json"
Message = Mapping[str, Any]
"""With `role` and `content`."""


def template_of(tokenizer: Tokenizer) -> str | None:
    """The chat template that came with a tokenizer; None if none did.

    Raises:
      UserError: its file is damaged, or it has several and none is called `default`.
    """
    if FILE in tokenizer.companions:
        return tokenizer.companions[FILE].decode("utf-8", "replace")
    settings = tokenizer.companions.get(SETTINGS)
    if settings is None:
        return None
    try:
        held = json.loads(settings)
    except ValueError as error:
        raise UserError(f"{SETTINGS} of the tokenizer is damaged ({error}).") from None
    found = held.get("chat_template") if isinstance(held, dict) else None
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        if "default" not in named:
            raise UserError(
                f"The tokenizer has the chat templates {', '.join(map(str, named))} and none "
                "called 'default': name one of them so."
            )
        found = named["default"]
    return found if isinstance(found, str) else None


def render(
    template: str, messages: Sequence[Message], tokenizer: Tokenizer, *, add_prompt: bool = True
) -> str:
    """The text of a conversation.

    Args:
      add_prompt: end with what introduces the model's answer.

    Raises:
      UserError: the template is not valid, or refuses the messages.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    # As transformers renders them.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    begin, end = tokenizer.pieces([tokenizer.bos_id, tokenizer.eos_id])
    try:
        return environment.from_string(template).render(
            messages=list(messages),
            add_generation_prompt=add_prompt,
            bos_token=begin,
            eos_token=end,
        )
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"The tokenizer's chat template refuses the messages ({error}).") from error
