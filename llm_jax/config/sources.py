"""Sources of text as a user names them: in a sources file, or as `--input` with options."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from typing import Any, Literal

from llm_jax.config.codec import from_dict, read_config
from llm_jax.config.dataset_info import Class
from llm_jax.config.errors import ConfigError, UserError, nearest, require


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Files that are read in one way. A field that is None is what the flag of that name says.

    Attributes:
      input: a path, a pattern with `*`, or an address such as gs://bucket/folder.
      name: in the dataset's provenance; empty: `input`.
      class_: `class` in JSON.
      text_key: a field, a path (data.body) or a template ({title} and {body}).
      metadata: fields that travel with each text.
    """

    input: str
    name: str = ""
    licence: str | None = None
    class_: Class | None = None
    encoding: str | None = None
    markup: Literal["none", "aozora", "html"] | None = None
    text_key: str | None = None
    metadata: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        require(self.input != "", "input is empty: give a path or an address.")


@dataclass(frozen=True, kw_only=True)
class SourcesFile:
    """What a file of `--sources` holds."""

    sources: tuple[SourceSpec, ...]

    def __post_init__(self) -> None:
        require(len(self.sources) > 0, "sources is empty: name at least one.")


OPTIONS = tuple(
    field.name.rstrip("_") for field in dataclasses.fields(SourceSpec) if field.name != "input"
)


def read_sources(path: str | os.PathLike[str]) -> tuple[SourceSpec, ...]:
    """The entries of a sources file.

    Raises:
      ConfigError: it cannot be read, or an entry is not valid.
    """
    return read_config(path, SourcesFile, "sources file").sources


def input_spec(text: str) -> SourceSpec:
    """What `--input PATH,option=value,…` says.

    A value ends before a comma with an option's name and `=`, so that it may have commas itself;
    fields of `metadata` are joined by `+`. A path that exists as it is written has no options.

    Raises:
      UserError: an option is unknown, or its value not valid.
    """
    if os.path.exists(text):  # noqa: PTH110 - a path that no file can have is no error here
        return SourceSpec(input=text)
    path, *rest = re.split(rf",({'|'.join(OPTIONS)})=", text)
    unknown = re.search(r",(\w+)=", path)
    if unknown and not os.path.exists(path):  # noqa: PTH110
        raise UserError(
            f"--input {text!r} has no option {unknown[1]!r}: {nearest(unknown[1], OPTIONS)}"
        )
    if not rest:
        return SourceSpec(input=text)
    values: dict[str, Any] = dict(zip(rest[::2], rest[1::2], strict=True))
    if "metadata" in values:
        values["metadata"] = values["metadata"].split("+")
    try:
        return from_dict({"input": path} | values, SourceSpec, "--input")
    except ConfigError as error:
        raise UserError(str(error)) from None
