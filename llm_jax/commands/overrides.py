"""A config from a reference and flags: `--field value` for every scalar field, through tyro."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import sys
import types
import typing
from collections.abc import Iterable
from typing import Any, NoReturn

from llm_jax.config import DataConfig, RunConfig, UserError, load, nearest

HELP = ("-h", "--help")


DATA_PATH = "--data.path"


def _flag_name(word: str) -> str:
    return word.split("=")[0].replace("_", "-")


def split(words: list[str], own: Iterable[str]) -> tuple[list[str], list[str]]:
    """The words of a verb with the flags `own`, and the flags of config fields with their values.

    A field's flag takes the next word; the flag of a list takes all words up to the next flag. So
    CONFIG may come before, between or after the flags.
    """
    verb: list[str] = []
    fields: list[str] = []
    several = _lists(RunConfig)
    takes = 0  # how many of the next words are values of a field's flag
    for place, word in enumerate(words):
        if word == "--":
            return [*verb, *words[place:]], fields
        if is_flag(word) and word.split("=")[0] not in own:
            fields.append(word)
            takes = 0 if "=" in word else len(words) if word.replace("_", "-") in several else 1
        elif takes and not is_flag(word) and word not in HELP:
            fields.append(word)
            takes -= 1
        else:
            verb.append(word)
            takes = 0
    return verb, fields


def is_flag(word: str) -> bool:
    """Whether argparse reads the word as a long flag."""
    return len(word) > 2 and word.startswith("--") and " " not in word.split("=")[0]


def print_help(parser: argparse.ArgumentParser, reference: str | None) -> NoReturn:
    """The verb's help, with every field and its value if a config is named; ends the program."""
    parser.usage = f"{parser.format_usage().removeprefix('usage: ').strip()} [--field value ...]"
    print(parser.format_help())
    if reference is None:
        print(f"`{parser.prog} CONFIG --help` shows the fields of CONFIG with their values.")
        sys.exit(0)
    _tyro(load(reference), ["--help"], parser.prog, reference)
    sys.exit(0)


def override(
    reference: str | None, flags: list[str], *, verb: str, own: Iterable[str] = ()
) -> RunConfig:
    """The config `reference` names, with `flags` such as `--optim.learning-rate 1e-3` applied.

    Args:
      own: flags of the verb itself, which are suggested for an unknown flag too.

    Raises:
      UserError: no config named, an unknown flag (the nearest are suggested), or a bad value.
      ConfigError: the resulting config is invalid.
    """
    if reference is None:
        raise UserError(
            f"llm-jax {verb} needs a CONFIG: a recipe's name, a run.json or a run's folder."
        )
    config = load(reference)
    if not flags:
        return config
    known = flag_names(config)
    if config.data.mixture and DATA_PATH in map(_flag_name, flags):  # one dataset in its place
        alone = dataclasses.replace(config.data, mixture=None, path=DataConfig.path)
        config = dataclasses.replace(config, data=alone)
    for flag in flags:
        if is_flag(flag) and _flag_name(flag) not in known:
            raise UserError(f"llm-jax {verb} has no flag {flag!r}: {nearest(flag, known | {*own})}")
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        return _tyro(config, flags, f"llm-jax {verb}", reference)
    raise UserError(f"{_sentence(said.getvalue())} See llm-jax {verb} {reference} --help.")


def _tyro(config: RunConfig, flags: list[str], prog: str, reference: str) -> RunConfig:
    import tyro

    return tyro.cli(
        RunConfig,
        prog=f"{prog} {reference}",
        description=f"The fields of {reference}.",
        default=config,
        args=flags,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
        registry=_registry(),
    )


def _registry() -> Any:
    """A rule that joins the lines of a field's help: tyro keeps the line breaks of docstrings."""
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec

    registry = ConstructorRegistry()

    @registry.struct_rule
    def joined(info: Any) -> StructConstructorSpec | None:
        cls = type(info.default)
        if cls is not info.type or not dataclasses.is_dataclass(cls):
            return None
        helps, fields = _field_helps(cls), []
        for name, hint in typing.get_type_hints(cls).items():
            value = getattr(info.default, name)
            group = inspect.getdoc(value) if dataclasses.is_dataclass(value) else None
            helptext = " ".join((group or helps.get(name, "")).split("\n\n")[0].split())
            # A flag changes the fields of a part, and not which class it is.
            kind = type(value) if dataclasses.is_dataclass(value) else hint
            fields.append(StructFieldSpec(name=name, type=kind, default=value, helptext=helptext))
        return StructConstructorSpec(instantiate=cls, fields=tuple(fields))

    return registry


def _field_helps(cls: type) -> dict[str, str]:
    """The docstring below each field of `cls` that has one."""
    (body,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: str(doc.value.value)
        for field, doc in itertools.pairwise(body.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
    }


def _sentence(box: str) -> str:
    """tyro's message: the rows of its box between the title and the next rule."""
    rows = [line.strip("│ ") for line in box.splitlines()[1:]]
    start = 1 if rows and not rows[0].strip("-") else 0  # without Unicode, a rule under the title
    said = " ".join(itertools.takewhile(lambda row: row.strip("─-"), rows[start:]))
    return said[:1].upper() + said[1:].rstrip(".") + "."


def flag_names(config: Any, prefix: str = "--") -> set[str]:
    """The flags of all fields of `config`; a part that is None (`model.moe`) has none."""
    names: set[str] = set()
    for field, hint in typing.get_type_hints(type(config)).items():
        value, name = getattr(config, field), prefix + field.replace("_", "-")
        if dataclasses.is_dataclass(value):
            names |= flag_names(value, name + ".")
        elif not any(map(dataclasses.is_dataclass, typing.get_args(hint))):
            names.add(name)
    return names


def _lists(cls: Any, prefix: str = "--") -> set[str]:
    """The flags of fields that hold several values."""
    names: set[str] = set()
    for field, hint in typing.get_type_hints(cls).items():
        name = prefix + field.replace("_", "-")
        united = typing.get_origin(hint) in (typing.Union, types.UnionType)
        for kind in typing.get_args(hint) if united else (hint,):
            if dataclasses.is_dataclass(kind):
                names |= _lists(kind, name + ".")
            elif typing.get_origin(kind) is tuple:
                names.add(name)
    return names
