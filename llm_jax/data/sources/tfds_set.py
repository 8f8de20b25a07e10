"""A registered tfds text dataset as documents."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import UserError, nearest
from llm_jax.config.dataset_info import INTERNAL, Class
from llm_jax.data.sources.document import Document
from llm_jax.data.sources.hashes import file_record
from llm_jax.data.sources.left_out import LeftOut, Unusable
from llm_jax.data.sources.markup import Markup, used_text
from llm_jax.data.sources.text_key import TextKey, metadata_names, metadata_of
from llm_jax.data.tfds import load_tfds, prepare


@dataclass(frozen=True)
class TfdsSource:
    """A registered tfds dataset with a text feature, prepared on first use.

    Attributes:
      set_name: as in tfds: `name`, `name/config` or `name/config:1.2.3`.
      text_key: the feature that holds the text, a path or a template (`TextKey`).
      data_dir: where tfds keeps prepared datasets. None: its default.
    """

    set_name: str
    split: str = "train"
    text_key: str = "text"
    data_dir: Path | None = None
    licence: str = ""
    class_: Class = INTERNAL
    metadata: tuple[str, ...] = ()
    markup: Markup = "none"

    @property
    def name(self) -> str:
        return f"tfds {self._builder().info.full_name}, split {self.split}"

    def fingerprint(self) -> str:
        info = self._builder().info
        settings = (self.text_key, self.licence, self.class_, self.metadata, self.markup)
        parts = (info.full_name, self.split, str(info.splits[self.split]), repr(settings))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        info = self._builder().info
        return {
            "name": self.name,
            "input": self.name,
            "encoding": "utf-8",
            "text_key": self.text_key,
            "markup": self.markup,
            "licence": self._licence(),
            "class": self.class_,
            "files": list(map(_record, info.splits[self.split].filepaths)),
        }

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        builder, licence, source = self._builder(), self._licence(), self.name
        key, names = TextKey(self.text_key), metadata_names(self.metadata)
        for i, record in enumerate(builder.as_data_source(split=self.split)):
            name = f"{builder.info.full_name}/{self.split}/{i}"
            text = used_text(partial(_text, key, record), self.markup, left_out, name)
            if text is not None:
                metadata = metadata_of(_decoded(record, "replace"), names)
                yield Document(text, name, licence, None, metadata, source, self.class_)

    def _licence(self) -> str:
        return self.licence or self._builder().info.redistribution_info.license or "unknown"

    def _builder(self) -> Any:
        """The prepared builder; raises `UserError` unless it has the split and the text."""
        tfds = load_tfds()
        data_dir = None if self.data_dir is None else str(self.data_dir)
        try:
            builder = tfds.builder(self.set_name, data_dir=data_dir, file_format="array_record")
            prepare(builder, messages=sys.stderr)
        except tfds.core.DatasetNotFoundError:
            raise UserError(
                f"--tfds is {self.set_name!r}: tfds has no such dataset; see "
                "`tfds.list_builders()`."
            ) from None
        except ValueError as error:
            raise UserError(
                f"--tfds is {self.set_name!r}, which tfds cannot read "
                f"({str(error).splitlines()[0]}): write NAME, or NAME/CONFIG:VERSION."
            ) from None
        except ImportError as error:
            raise UserError(
                f"Preparing {self.set_name!r} from tfds needs a package that is missing ({error}): "
                "try `pip install llm-jax[tfds-public]`."
            ) from None
        if self.split not in builder.info.splits:
            known = ", ".join(builder.info.splits)
            raise UserError(
                f"--tfds-split is {self.split!r}: {self.set_name} has the splits {known}."
            )
        features = builder.info.features
        for path in TextKey(self.text_key).fields:
            if path not in features and path.partition(".")[0] not in features:
                raise UserError(
                    f"--text-key is {self.text_key!r}, but {self.set_name} has no such feature: "
                    f"{nearest(path, features)}"
                )
        return builder


def _text(key: TextKey, record: Any) -> str:
    return key.text(_decoded(record))


def _decoded(value: Any, errors: str = "strict") -> Any:
    """A record with text in place of bytes; raises `Unusable` if one is not UTF-8."""
    if isinstance(value, dict):
        return {name: _decoded(held, errors) for name, held in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise Unusable("not utf-8", str(error)) from None


def _record(path: Any) -> dict[str, Any]:
    with Path(path).open("rb") as stream:
        return file_record(path, stream)
