"""Safetensors files of a checkpoint: one, or numbered parts of at most 5 GB with an index.

Memory holds one tensor at a time. Nothing is unpickled. An index that names a file outside of the
folder is refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import UserError, read_json
from llm_jax.convert.tensor_file import TensorFile, open_local
from llm_jax.convert.tensor_file import write as write_file

SHARD_BYTES = 5_000_000_000
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F32", "F16", "BF16", "F64")


def write(
    folder: Path,
    shapes: dict[str, tuple[int, ...]],
    dtype: np.dtype,
    read: Callable[[str], np.ndarray],
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """Writes all tensors; memory holds one at a time.

    Args:
      shapes: tensor name → shape, in the order in which they are written.
      read: returns the contiguous array of a name, with dtype `dtype`.

    Returns:
      The names of the files written.

    Raises:
      OSError: a file could not be written.
    """
    parts: list[list[str]] = [[]]
    filled, total = 0, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        if parts[-1] and filled + size > shard_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
        total += size
    files = [WEIGHTS]
    if len(parts) > 1:
        files = [f"model-{i:05}-of-{len(parts):05}.safetensors" for i in range(1, len(parts) + 1)]
    for file, names in zip(files, parts, strict=True):
        write_file(folder / file, {name: shapes[name] for name in names}, dtype, map(read, names))
    if len(parts) == 1:
        return files
    weight_map = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [*files, INDEX]


class Weights:
    """The tensors in a folder that is not trusted.

    Attributes:
      shapes: tensor name → shape.
      is_bfloat16: whether all tensors are stored in bfloat16.

    Args:
      folder: with the index of the files, if there are several.
      elsewhere: opens a file of weights by its name, if they are not in `folder`.

    Raises:
      UserError: there is no safetensors file, a file is damaged, an index names a file outside of
        the folder, or a tensor does not hold floating-point numbers (one of `types`).
    """

    def __init__(
        self,
        folder: Path,
        elsewhere: Callable[[str], TensorFile] | None = None,
        types: tuple[str, ...] = FLOATS,
    ) -> None:
        self._folder, self._elsewhere = folder, elsewhere
        self._place: dict[str, TensorFile] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.is_bfloat16 = True
        files = {}
        for file in sorted(set(self._named_files())):
            opened = files[file] = self._open(file)
            for name, entry in opened.entries.items():
                if name in self._place:
                    raise UserError(
                        f"{folder} has tensor {name!r} in two files, {self._place[name].name} and "
                        f"{opened.name}: remove one."
                    )
                if entry.dtype not in types:
                    raise UserError(
                        f"Tensor {name!r} of {opened.name} has type {entry.dtype}: only "
                        f"{', '.join(FLOATS)} can be imported, not quantised weights."
                    )
                self.is_bfloat16 &= entry.dtype == "BF16"
                self._place[name] = opened
                self.shapes[name] = entry.shape
        self._check_index(files)

    def type_of(self, name: str) -> str:
        """The stored dtype of the tensor `name`, as safetensors calls it."""
        return self._place[name].entries[name].dtype

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` in its stored dtype."""
        return self._place[name].read(name)

    def _named_files(self) -> Iterator[str]:
        if not (self._folder / INDEX).is_file():
            if self._elsewhere is None and not (self._folder / WEIGHTS).is_file():
                raise UserError(
                    f"{self._folder} has neither {WEIGHTS} nor {INDEX}: only safetensors are read, "
                    "never pickled .bin files; convert them with transformers' save_pretrained."
                )
            yield WEIGHTS
            return
        for file in self._weight_map().values():
            if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
                raise UserError(
                    f"{self._folder / INDEX} names the file {file!r}: only files in the folder "
                    "itself are read."
                )
            yield file

    def _weight_map(self) -> dict[str, Any]:
        path = self._folder / INDEX
        try:
            found = read_json(path)["weight_map"]
        except (KeyError, TypeError):
            found = None
        if not isinstance(found, dict) or not found:
            raise UserError(f"{path} has no weight_map: it is not an index of safetensors files.")
        return found

    def _open(self, file: str) -> TensorFile:
        if self._elsewhere:
            return self._elsewhere(file)
        path = self._folder / file
        if path.is_symlink() and not _inside(path, self._folder):
            raise UserError(f"{path} is a link that leads out of the folder: copy the file itself.")
        if not path.is_file():
            raise UserError(f"There is no file {path}, which {INDEX} names: download it again.")
        return open_local(path)

    def _check_index(self, files: dict[str, TensorFile]) -> None:
        if (self._folder / INDEX).is_file():
            for name, file in self._weight_map().items():
                if self._place.get(name) is not files[file]:
                    raise UserError(
                        f"{self._folder / INDEX} says that {name!r} is in {file!r}, but it is not."
                    )


def _inside(path: Path, folder: Path) -> bool:
    """Whether `path` is in `folder` after links are resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
