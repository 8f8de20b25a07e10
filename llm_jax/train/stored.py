"""The arrays of a checkpoint, read without Orbax, for those who only read.

Whole arrays are read into memory that a CPU's programs use as it is. Orbax would hold a copy too.
Models that do not fit in memory are read a slice at a time.

A stacked array holds all layers of a model. Where its chunks on disk span several layers, as a run
on one device writes them, each slice would take reading all of them; such an array is copied to a
temporary file first, chunk by chunk.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from llm_jax.train.failures import Damaged, reason
from llm_jax.train.host_arrays import aligned_empty

Params = dict[str, Any]
CACHE_BYTES = 100_000_000
"""Of the index of a checkpoint's chunks."""


class StoredArray:
    """An array on disk, of which `array[place]` reads a slice.

    Attributes:
      shape: of the whole array.
      dtype: of the slices.

    Args:
      look: called with each slice; returns what stands in its place.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        read: Callable[[Any], np.ndarray],
        look: Callable[[np.ndarray, Any], np.ndarray] | None = None,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._read, self._look = read, look

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __getitem__(self, place: Any) -> np.ndarray:
        found = self._read(place)
        return found if self._look is None else self._look(found, place)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self[()]
        return found if dtype is None else found.astype(dtype, copy=False)

    def looked_at(self, look: Callable[[np.ndarray, Any], np.ndarray]) -> StoredArray:
        """The same array, with `look` between the disk and whoever reads it."""
        return StoredArray(self.shape, self.dtype, self.__getitem__, look)


class StoredItem:
    """The arrays of one item of a checkpoint (`params`, `opt`).

    Args:
      folder: of the item, written by Orbax.
      scratch: an empty folder for arrays of which slices are read and that are laid out anew.
    """

    def __init__(self, folder: Path, scratch: Path | None = None) -> None:
        self._folder, self._scratch = folder.absolute(), scratch
        self._context = ts.Context({"cache_pool#ocdbt": {"total_bytes_limit": CACHE_BYTES}})

    def whole(self, shapes: Params) -> Params:
        """A tree of NumPy arrays like `shapes`, which are float32; raises as `tree` does."""

        def read(path: Any, leaf: Any) -> np.ndarray:
            array = self._checked([entry.key for entry in path], leaf.shape)
            made = aligned_empty(leaf.shape)
            try:
                ts.array(made).write(ts.cast(array, ts.float32)).result()
            except (ValueError, RuntimeError) as error:
                raise Damaged(f"{self._folder} cannot be read ({reason(error)}).") from None
            return made

        return jax.tree_util.tree_map_with_path(read, shapes)

    def tree(self, shapes: Params, stacks: Any) -> Params:
        """A tree of `StoredArray` like `shapes`.

        Args:
          stacks: names of the subtrees whose arrays have a leading axis of layers.

        Raises:
          Damaged: an array is missing or has another shape.
        """

        def opened(path: Any, leaf: Any) -> StoredArray:
            keys = [entry.key for entry in path]
            return self.array(keys, leaf.shape, stacked=keys[0] in stacks)

        return jax.tree_util.tree_map_with_path(opened, shapes)

    def array(self, keys: list[str], shape: tuple[int, ...], *, stacked: bool) -> StoredArray:
        """The array that has the place `keys` in the item's tree; raises as `tree` does."""
        name, found = ".".join(keys), self._checked(keys, shape)
        dtype = found.dtype.numpy_dtype
        if stacked and found.chunk_layout.read_chunk.shape[0] > 1:
            assert self._scratch is not None
            file = self._scratch / f"{self._folder.name}.{name}"
            return StoredArray(found.shape, dtype, _Laid(file, found, self._slice).read)
        return StoredArray(found.shape, dtype, lambda place: self._slice(found, place))

    def _checked(self, keys: list[str], shape: tuple[int, ...]) -> Any:
        """TensorStore's array in the place `keys`."""
        name = ".".join(keys)
        try:
            found = self._open(name)
        except ValueError as error:
            raise Damaged(f"{self._folder} has no array {name!r} ({reason(error)}).") from None
        if tuple(found.shape) != tuple(shape):
            raise Damaged(
                f"{self._folder} has an array {name!r} of shape {list(found.shape)}, not "
                f"{list(shape)}."
            )
        return found

    def _open(self, name: str) -> Any:
        return ts.open(
            {
                "driver": "zarr",
                "kvstore": {
                    "driver": "ocdbt",
                    "base": {"driver": "file", "path": f"{self._folder}/"},
                    "path": f"{name}/",
                },
                "fill_missing_data_reads": False,
            },
            open=True,
            read=True,
            context=self._context,
        ).result()

    def _slice(self, array: Any, place: Any) -> np.ndarray:
        try:
            return np.asarray(array[place].read().result())
        except (ValueError, RuntimeError) as error:
            raise Damaged(f"{self._folder} cannot be read ({reason(error)}).") from None


class _Laid:
    """A file in which an array lies in order, made when the first slice is asked for."""

    def __init__(self, file: Path, array: Any, read: Callable[[Any, Any], np.ndarray]) -> None:
        self._file, self._array, self._read = file, array, read

    def read(self, place: Any) -> np.ndarray:
        if not self._file.exists():
            self._lay()
        return np.array(self._mapped("r")[place])  # a copy: the map is closed with the slice

    def _lay(self) -> None:
        chunk = self._array.chunk_layout.read_chunk.shape
        size = math.prod(self._array.shape) * self._array.dtype.numpy_dtype.itemsize
        _allocate(self._file, size)
        for place in _grid(self._array.shape, chunk):
            part = self._read(self._array, place)
            for row in range(part.shape[0]):  # a map for each: its pages count as memory
                self._mapped("r+")[place][row] = part[row]

    def _mapped(self, mode: Any) -> np.memmap:
        return np.memmap(self._file, self._array.dtype.numpy_dtype, mode, shape=self._array.shape)


def _allocate(file: Path, size: int) -> None:
    """Makes a file of `size` bytes that has all its blocks on the disk. Where a map of a file is
    written to and the disk is full, the system ends the process.

    Raises:
      OSError: the disk is full.
    """
    with file.open("wb") as made:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(made.fileno(), 0, size)
            else:
                made.truncate(size)
        except OSError as error:  # it does not name the file
            raise OSError(error.errno, error.strerror, str(file)) from None


def _grid(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Places of all chunks."""
    steps = [range(0, size, step) for size, step in zip(shape, chunk, strict=True)]
    for starts in itertools.product(*steps):
        yield tuple(slice(a, min(a + c, n)) for a, c, n in zip(starts, chunk, shape, strict=True))
