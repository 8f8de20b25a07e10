"""Configs from and to JSON, strictly, and by the name of a recipe."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import keyword
import math
import os
import runpy
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from llm_jax.config.errors import ConfigError, UserError, nearest, require
from llm_jax.config.jsonfile import parse_json, read_json
from llm_jax.config.migrations import format_of, migrated
from llm_jax.config.run import RunConfig

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """`config` as nested plain dicts, ready for JSON, with its `format` if the class has one."""
    number = format_of(type(config))
    return ({} if number is None else {"format": number}) | _as_json(dataclasses.asdict(config))


def _as_json(value: Any) -> Any:
    """`value` with lists in place of tuples, as it is when it has been written and read."""
    if isinstance(value, dict):
        return {key: _as_json(held) for key, held in value.items()}
    return [_as_json(held) for held in value] if isinstance(value, tuple | list) else value


def to_json(config: Any) -> str:
    """`config` as indented JSON, with a newline at the end."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str, cls: type[T]) -> T:
    """Inverse of `to_json`.

    Raises:
      ConfigError: `text` is not JSON, or has an unknown key, a missing key or a wrong type.
    """
    with _as_config_error():
        raw = parse_json(text, "The config")
    return from_dict(raw, cls)


def read_config(path: str | os.PathLike[str], cls: type[T], where: str = "run") -> T:
    """The `cls` in the JSON file `path`. `where` names it in errors.

    Raises:
      ConfigError: there is no such file, it is not JSON, or `from_dict` refuses what it holds.
    """
    with _as_config_error():
        raw = read_json(path)
    return from_dict(raw, cls, where)


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ConfigError(str(error)) from None


def from_dict(raw: Any, cls: type[T], where: str = "run") -> T:
    """Builds the dataclass `cls` from nested dicts of any format. `where` names it in errors.

    Raises:
      ConfigError: an unknown key, a missing key, a wrong type, or a format of a newer version.
    """
    require(isinstance(raw, dict), f"{where} is {raw!r}: it must be an object with named fields.")
    raw = migrated(raw, cls, where)
    hints = _hints(cls)  # type: ignore[arg-type]
    for key in raw:
        if key not in hints:  # the nearest name takes milliseconds to find
            raise ConfigError(f"{where} has no field {key!r}: {nearest(key, hints)}")
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        no_default = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        name = _written(item.name)
        require(name in raw or not no_default, f"{where}.{name} is missing: set it.")
    values = {key: _convert(raw[key], hints[key], f"{where}.{key}") for key in raw}
    return cls(**{f"{key}_" if keyword.iskeyword(key) else key: values[key] for key in values})


@functools.cache  # reading annotations takes longer than all the rest
def _hints(cls: type) -> dict[str, Any]:
    """Name of each field in JSON → its type."""
    return {_written(name): hint for name, hint in typing.get_type_hints(cls).items()}


def _written(name: str) -> str:
    """The name of a field in JSON: `class` of `class_`, which Python keeps for itself."""
    plain = name.removesuffix("_")
    return plain if keyword.iskeyword(plain) else name


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` checked against the type `hint`; nested objects become dataclasses."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if isinstance(value, dict) and len(options) > 1:
            return from_dict(value, _variant(value, options, where), where)
        return _convert(value, options[0], where)
    if origin is Literal:
        choices = ", ".join(repr(a) for a in args)
        require(value in args, f"{where} is {value!r}: choose one of {choices}.")
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where} is {value!r}: it must be a list.")
        return tuple(_convert(one, args[0], f"{where}[{i}]") for i, one in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return from_dict(value, hint, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1 << 1023 else math.inf
    right = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    require(right, f"{where} is {value!r}: it must be of type {hint.__name__}.")
    if hint is str:
        require("\0" not in value, f"{where} is {value!r}: it must not hold a NUL character.")
    if hint is float:
        require(math.isfinite(value), f"{where} is {value}: it must be a finite number.")
    return value


def _variant(value: dict[str, Any], options: list[Any], where: str) -> Any:
    """The class among `options` that the `kind` in `value` means.

    One whose `kind` is any text stands for all other kinds, and for none.
    """
    kinds = {option.kind: option for option in options}
    others = [option for option in options if _hints(option)["kind"] is str]
    kind = value.get("kind", others[0].kind if others else None)
    if isinstance(kind, str) and kind in kinds:
        return kinds[kind]
    if not others:
        raise ConfigError(f"{where}.kind is {kind!r}: {nearest(str(kind), kinds)}")
    return others[0]


def load(reference: str) -> RunConfig:
    """The config of `reference`: a recipe's name or path, a `run.json`, or the folder of a run.

    The config of a run folder has this folder as its `out`, even if the folder has been moved.

    Args:
      reference: name of a recipe in `configs/` of the current folder or of the package, or a path.
        A recipe is a program, which is run.

    Raises:
      ConfigError: nothing has that name, or it does not hold a valid `RunConfig`.
    """
    path = Path(reference)
    if _is_run(reference):
        config = load(str(path / "run.json"))
        here = os.path.realpath(config.out) == os.path.realpath(path)
        return config if here else dataclasses.replace(config, out=reference)
    if path.suffix == ".json":
        require(path.is_file(), f"There is no config file {reference!r}: check the path.")
        return read_config(path, RunConfig)
    if path.suffix != ".py":
        recipes = _recipes()
        require(
            len(path.parts) == 1 or reference in recipes,
            f"There is no folder {reference!r}: give a recipe's name, a run.json or a run.",
        )
        require(
            reference in recipes, f"There is no recipe {reference!r}: {nearest(reference, recipes)}"
        )
        path = recipes[reference]
    require(path.is_file(), f"There is no recipe file {reference!r}: check the path.")
    config = _run_recipe(path)
    require(isinstance(config, RunConfig), f"config() in {path} did not return a RunConfig.")
    return config


def json_file(reference: str) -> Path | None:
    """The JSON file that `load` reads for `reference`; None if that is a recipe."""
    if _is_run(reference):
        return Path(reference) / "run.json"
    return Path(reference) if reference.endswith(".json") else None


def _is_run(reference: str) -> bool:
    """Whether `reference` names a run's folder: a recipe of the same name comes first."""
    return Path(reference).is_dir() and reference not in _recipes()


def _run_recipe(path: Path) -> Any:
    """What config() in the Python file `path` returns."""
    try:
        names = runpy.run_path(str(path))
        require(
            "config" in names, f"The recipe {path} has no function config() -> RunConfig: add it."
        )
        return names["config"]()
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(
            f"The recipe {path} could not be run ({type(error).__name__}: {error}): fix it."
        ) from error


def _recipes() -> dict[str, Path]:
    """Name → file of every recipe that can be found."""
    return {path.stem: path for folder in recipe_folders() for path in sorted(folder.glob("*.py"))}


def recipe_folders() -> list[Path]:
    """Folders that may hold recipes: `configs/` here, and the one of the package."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "configs", package.parent / "configs", Path("configs"))
    return [folder for folder in folders if folder.is_dir()]
