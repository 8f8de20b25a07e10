"""Safetensors files of a checkpoint: one, or numbered parts of at most 5 GB with an index.

Nothing is unpickled. An index that names a file outside of the folder is refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llm_jax.config import UserError, read_json
from llm_jax.runs.disk_errors import system_error

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
    """Writes all tensors; memory holds those of one file at a time.

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
        _save({name: read(name) for name in names}, folder / file)
    if len(parts) == 1:
        return files
    weight_map = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [*files, INDEX]


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Raises `OSError` if the file cannot be written."""
    path.touch()
    by_umask = path.stat().st_mode
    try:
        save_file(arrays, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise system_error(error, path) from error
    path.chmod(by_umask)  # safetensors makes files that only their owner can read


class Weights:
    """The tensors in a folder that is not trusted.

    Attributes:
      shapes: tensor name → shape.

    Raises:
      UserError: there is no safetensors file, a file is damaged, an index names a file outside of
        the folder, or a tensor does not hold floating-point numbers (one of `types`).
    """

    def __init__(self, folder: Path, types: tuple[str, ...] = FLOATS) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._place: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in sorted(set(self._named_files())):
            opened = self._open(file)
            for name in opened.keys():  # noqa: SIM118 (a safetensors handle, not a dict)
                if name in self._place:
                    raise UserError(
                        f"{folder} has tensor {name!r} in two files, {self._place[name]} and "
                        f"{file}: remove one."
                    )
                view = opened.get_slice(name)
                if view.get_dtype() not in types:
                    raise UserError(
                        f"Tensor {name!r} of {folder / file} has type {view.get_dtype()}: only "
                        f"{', '.join(FLOATS)} can be imported, not quantised weights."
                    )
                self._place[name] = file
                self.shapes[name] = tuple(view.get_shape())
        self._check_index()

    def type_of(self, name: str) -> str:
        """The stored dtype of the tensor `name`, as safetensors calls it."""
        return str(self._files[self._place[name]].get_slice(name).get_dtype())

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` in its stored dtype."""
        try:
            return self._files[self._place[name]].get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"Tensor {name!r} of {self._folder} is broken ({error}).") from None

    def _named_files(self) -> Iterator[str]:
        if not (self._folder / INDEX).is_file():
            if not (self._folder / WEIGHTS).is_file():
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

    def _open(self, file: str) -> Any:
        path = self._folder / file
        if path.is_symlink() and not _inside(path, self._folder):
            raise UserError(f"{path} is a link that leads out of the folder: copy the file itself.")
        if not path.is_file():
            raise UserError(f"There is no file {path}, which {INDEX} names: download it again.")
        try:
            self._files[file] = safe_open(path, framework="np")
        except SafetensorError as error:
            raise UserError(f"{path} is not a complete safetensors file ({error}).") from None
        return self._files[file]

    def _check_index(self) -> None:
        if (self._folder / INDEX).is_file():
            for name, file in self._weight_map().items():
                if self._place.get(name) != file:
                    raise UserError(
                        f"{self._folder / INDEX} says that {name!r} is in {file!r}, but it is not."
                    )


def _inside(path: Path, folder: Path) -> bool:
    """Whether `path` is in `folder` after links are resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
