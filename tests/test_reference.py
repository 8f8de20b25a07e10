"""docs/reference has an entry for each public name, and the docstrings say what the code has."""

from __future__ import annotations

import functools
import inspect
import pkgutil
import re
from pathlib import Path

import griffe
import pytest

import llm_jax as lj

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
ENTRIES = [
    entry for page in PAGES for entry in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)
]


@functools.cache
def package() -> griffe.Module:
    """The package as mkdocstrings reads it, without importing it."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], allow_inspection=False)
    loader.load("llm_jax")
    loader.resolve_aliases()
    return loader.modules_collection["llm_jax"]


def shown(entry: str) -> griffe.Object:
    found = package()[entry.removeprefix("llm_jax.")]
    return found.final_target if found.is_alias else found


entries = pytest.mark.parametrize("entry", ENTRIES)
classes = pytest.mark.parametrize("entry", [name for name in ENTRIES if shown(name).is_class])


def named(thing: griffe.Object, kind: str) -> list[str]:
    """The names in the section `kind` (parameters, attributes) of the docstring of `thing`."""
    sections = thing.docstring.parse("google", warnings=False) if thing.docstring else []
    return [item.name for one in sections if one.kind.value == kind for item in one.value]


def parameters(function: griffe.Function) -> list[str]:
    stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    listed = [one for one in function.parameters if one.name not in ("self", "cls")]
    return [stars.get(one.kind, "") + one.name for one in listed]


def test_every_public_name_has_one_entry_and_one_row() -> None:
    assert len(ENTRIES) == len(set(ENTRIES))
    public = {f"llm_jax.{name}" for name in lj.__all__}
    assert {entry for entry in ENTRIES if entry.count(".") == 1} == public
    table = (ROOT / "docs/reference/index.md").read_text("utf-8").split("|---|---|")[1]
    rows = re.findall(r"\[`(\w+)[^`]*`\]\[llm_jax\.(\w+)\]", table)
    assert [text for text, _ in rows] == [target for _, target in rows]
    assert sorted(text for text, _ in rows) == sorted(lj.__all__)


@entries
def test_an_entry_is_what_an_import_gives(entry: str) -> None:
    thing, read = pkgutil.resolve_name(entry), shown(entry)
    assert read.docstring and read.docstring.value[0].isupper()
    if isinstance(read, griffe.Class | griffe.Function):
        assert f"{thing.__module__}.{thing.__qualname__}" == read.path
        assert inspect.getdoc(thing) == read.docstring.value


@pytest.mark.parametrize("name", [name for name in lj.__all__ if name.islower()])
def test_a_public_function_documents_each_parameter(name: str) -> None:
    function = shown(f"llm_jax.{name}")
    assert isinstance(function, griffe.Function)
    assert named(function, "parameters") == parameters(function) != []


@classes
def test_a_class_documents_its_fields(entry: str) -> None:
    cls = shown(entry)
    fields = {
        name: member
        for name, member in cls.attributes.items()
        if "dataclass" in cls.labels and "property" not in member.labels
    }
    own = {name for name, member in fields.items() if member.docstring}
    assert own | set(named(cls, "attributes")) >= set(fields)
    assert set(named(cls, "attributes")) <= set(cls.attributes)


@classes
def test_the_arguments_of_a_class_and_its_methods_are_real(entry: str) -> None:
    cls = shown(entry)
    if arguments := named(cls, "parameters"):
        assert arguments == parameters(cls.functions["__init__"])
    for name, method in cls.functions.items():
        if arguments := named(method, "parameters"):
            assert arguments == parameters(method), name
