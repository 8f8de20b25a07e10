"""Chat templates: a conversation to the text that a model was trained on.

A template is a Jinja program from the model's folder or from a file. It runs in Jinja's sandbox,
where it can change nothing and reach nothing but its variables, and it is ended when it runs for
too long or writes too much. The variables and functions are those that transformers gives.
"""

from __future__ import annotations

import contextvars
import datetime
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llm_jax.config import UserError
from llm_jax.config.jsonfile import parse_json
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.files import SETTINGS

FILE = "chat_template.jinja"
MOST_TEXT = 1 << 24
"""Characters of a conversation as text, and of a product of a text and a number."""
MOST_BITS = 1024
"""Of a product or a power of whole numbers."""
MOST_SECONDS = 10.0
"""For one conversation."""
MOST_SHOWN = 300
"""Characters of what a template says in an error."""


class ChatTemplate:
    """A compiled template.

    Args:
      source: the template.
      where: what it is called in errors.

    Raises:
      UserError: it is not a template.
    """

    def __init__(self, source: str, where: str) -> None:
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters |= {"tojson": _json, TURNS: _turns}
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        self.source, self.where = source, where
        try:
            tree = environment.parse(source)
            _with_clock(tree, environment)
            self._template = environment.from_string(tree)
        except (jinja2.TemplateError, RecursionError) as error:
            raise UserError(f"The chat template {where} is not one ({error}).") from None

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokens: Mapping[str, str],
        *,
        tools: list[dict[str, Any]] | None = None,
        more: Mapping[str, Any] | None = None,
        add_prompt: bool = True,
    ) -> str:
        """A conversation, by default up to where the model's answer begins.

        Args:
          messages: each with `role` and `content`.
          tokens: spellings of special tokens, such as `bos_token`.
          more: other variables of the template.
          add_prompt: end with what introduces the model's answer.

        Raises:
          UserError: the template refuses the conversation, fails at it, or does not end.
        """
        variables = dict(more or {}) | dict(tokens)
        variables |= {
            "messages": list(messages), "tools": tools, "add_generation_prompt": add_prompt,
        }  # fmt: skip
        _end.set(time.monotonic() + MOST_SECONDS)
        parts, size = [], 0
        try:
            for part in self._template.generate(variables):
                parts.append(part)
                size += len(part)
                if size > MOST_TEXT:
                    raise UserError(f"The conversation has more than {MOST_TEXT:,} characters.")
        except UserError:
            raise
        except _Refused as error:
            raise UserError(f"The chat template refuses: {_said(error)}.") from None
        except Exception as error:  # whatever the template's expressions raise
            raise UserError(f"The chat template fails: {_said(error)}.") from None
        return "".join(parts)


def from_tokenizer(tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template that came with a tokenizer; None if there is none.

    Raises:
      UserError: its file is damaged, it is not a template, or there are several and none is called
        `default`.
    """
    files = tokenizer.companions
    if FILE in files:
        return ChatTemplate(files[FILE].decode("utf-8", "replace"), FILE)
    for name in ("chat_template.json", "tokenizer_config.json"):
        raw = parse_json(files[name], name) if name in files else None
        source = raw.get("chat_template") if isinstance(raw, dict) else None
        if isinstance(source, list):
            named = {
                one.get("name"): one.get("template") for one in source if isinstance(one, dict)
            }
            if "default" not in named:
                raise UserError(
                    f"{name} of the tokenizer has the chat templates "
                    f"{', '.join(map(str, named))} and none called 'default': name one of them so."
                )
            source = named["default"]
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


class ConversationIds:
    """Ids of texts that a template made, in which special tokens are spelled out. Some libraries
    take these for text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, int] = {}
        spelled = tokenizer.pieces([tokenizer.eos_id])[0]
        if tokenizer.encode(spelled) != [tokenizer.eos_id]:
            pieces, names = tokenizer.pieces(range(tokenizer.vocab_size)), set(tokenizer.special)
            self._ids = {piece: i for i, piece in enumerate(pieces) if piece in names}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._splitter = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def __call__(self, text: str) -> list[int]:
        if not self._ids:
            return self._tokenizer.encode(text)
        found: list[int] = []
        for part in self._splitter.split(text):
            if part in self._ids:
                found.append(self._ids[part])
            elif part:
                found += self._tokenizer.encode(part)
        return found


_end: contextvars.ContextVar[float] = contextvars.ContextVar("end")
"""When the conversation that is being written is given up, by `time.monotonic`."""
TURNS = "turns of a loop"
"""A filter that no template can name."""


class _Generation(Extension):
    """The block {% generation %} marks what a model is trained on; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's, with a clock and without endless products."""

    intercepted_binops = frozenset({"*", "**"})

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        _look()
        return super().call(context, called, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(right, int):
            if isinstance(left, int):
                bits = left.bit_length(), abs(right) if operator == "**" else right.bit_length()
                large = (bits[0] * bits[1] if operator == "**" else sum(bits)) > MOST_BITS
            else:
                large = hasattr(left, "__len__") and len(left) * right > MOST_TEXT
        else:
            large = hasattr(right, "__len__") and isinstance(left, int) \
                and len(right) * left > MOST_TEXT  # fmt: skip
        if large:
            raise _Refused(f"a result of {operator} is too large")
        return super().call_binop(context, operator, left, right)


def _with_clock(tree: nodes.Template, environment: jinja2.Environment) -> None:
    """Each loop of a template then looks at the clock at each of its turns."""
    for loop in list(tree.find_all(nodes.For)):
        turns = nodes.Filter(loop.iter, TURNS, [], [], None, None, lineno=loop.lineno)
        loop.iter = turns.set_environment(environment)


def _turns(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _look()
        yield value


def _look() -> None:
    if time.monotonic() > _end.get():
        raise UserError(f"The chat template does not end: it ran for {MOST_SECONDS:g} s.")


class _Refused(Exception):
    """What a template raises."""


def _refuse(message: object) -> NoReturn:
    raise _Refused(message)


def _said(error: Exception) -> str:
    return str(error)[:MOST_SHOWN].rstrip(".")


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
