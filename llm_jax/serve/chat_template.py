"""Chat templates: a conversation to the text that a model was trained on.

A template is a Jinja program from the model's folder or from a file. It runs in Jinja's sandbox,
where it can change nothing and reach nothing but its variables. The variables and functions are
those that transformers gives.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llm_jax.config import UserError, read_text
from llm_jax.config.jsonfile import parse_json
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.serve.errors import ApiError, bad

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
MOST_TEXT = 1 << 24
"""Characters of a conversation as text."""


class _Generation(Extension):
    """The block {% generation %} marks what a model is trained on; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template.

    Args:
      source: the template.
      where: what it is called in errors.

    Raises:
      UserError: it is not a template.
    """

    def __init__(self, source: str, where: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        self.source, self.where = source, where
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"The chat template {where} is not one ({error}).") from None

    def text(
        self,
        messages: list[dict[str, Any]],
        tokens: Mapping[str, str],
        *,
        tools: list[dict[str, Any]] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation, up to where the model's answer begins.

        Args:
          tokens: spellings of special tokens, such as `bos_token`.
          more: other variables of the template.

        Raises:
          ApiError: the template refuses the conversation, or fails at it.
        """
        variables = dict(more or {}) | dict(tokens)
        variables |= {"messages": messages, "tools": tools, "add_generation_prompt": True}
        try:
            text = self._template.render(variables)
        except _Refused as error:
            raise bad("messages", f"The chat template refuses: {error}.") from None
        except Exception as error:  # whatever the template's expressions raise
            raise bad("messages", f"The chat template fails: {error}.") from None
        if len(text) > MOST_TEXT:
            raise ApiError(400, f"The conversation has more than {MOST_TEXT:,} characters.")
        return text


class _Refused(Exception):
    """What a template raises."""


def _refuse(message: object) -> NoReturn:
    raise _Refused(str(message).rstrip("."))


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def from_file(path: Path) -> ChatTemplate:
    """Raises `UserError` if there is none."""
    try:
        return ChatTemplate(read_text(path), str(path))
    except UserError as error:
        raise UserError(f"--chat-template: {error}") from None


def from_tokenizer(tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template that came with a tokenizer; None if there is none."""
    files = tokenizer.companions
    if "chat_template.jinja" in files:
        written = files["chat_template.jinja"].decode("utf-8", "replace")
        return ChatTemplate(written, "chat_template.jinja")
    for name in ("chat_template.json", "tokenizer_config.json"):
        raw = parse_json(files[name], name) if name in files else None
        source = raw.get("chat_template") if isinstance(raw, dict) else None
        if isinstance(source, list):  # several by name
            named = {one["name"]: one["template"] for one in source if isinstance(one, dict)}
            source = named.get("default")
        if isinstance(source, str):
            return ChatTemplate(source, name)
    return None


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Variables of templates: the role of each special token → its spelling."""
    begin, end = tokenizer.pieces([tokenizer.bos_id, tokenizer.eos_id])
    found = {"bos_token": begin, "eos_token": end}
    for name in reversed(SETTINGS):
        raw = parse_json(tokenizer.companions[name], name) if name in tokenizer.companions else None
        for role, token in raw.items() if isinstance(raw, dict) else ():
            spelling = token.get("content") if isinstance(token, dict) else token
            if role.endswith("_token") and isinstance(spelling, str):
                found[role] = spelling
    return found
