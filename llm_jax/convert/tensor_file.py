"""One safetensors file, read and written a tensor at a time, so that none else is in memory.

A file is 8 bytes with the length of a JSON header, the header, and the bytes of the tensors. It is
read by ranges, from a disk or through fsspec, and not mapped into memory: pages of a mapped file
count as the program's.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from llm_jax.config import UserError
from llm_jax.config.jsonfile import parse_json

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
"""Name of a dtype in the header → the dtype."""
MOST_HEADER = 100_000_000
"""Bytes of a header, as the safetensors library allows."""
Ranges = Callable[[int, int], "bytes | bytearray | memoryview"]
"""Reads the bytes of a file from an offset to another."""


class Entry(NamedTuple):
    """A tensor in the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Of its bytes, from the beginning of the file."""
    end: int


class TensorFile:
    """The tensors of a file that is not trusted.

    Attributes:
      entries: tensor name → where and what it is, in the order of the header.

    Args:
      name: of the file, for errors.
      size: in bytes.
      ranges: reads it.

    Raises:
      UserError: it is not a whole safetensors file.
    """

    def __init__(self, name: str, size: int, ranges: Ranges) -> None:
        self.name, self._ranges = name, ranges
        if size < 8:
            raise self._broken(f"it has {size} bytes")
        (length,) = struct.unpack("<Q", ranges(0, 8))
        if length > MOST_HEADER or 8 + length > size:
            raise self._broken(f"its header would have {length:,} bytes, the file has {size:,}")
        header = parse_json(bytes(ranges(8, 8 + length)), f"The header of {name}")
        if not isinstance(header, dict):
            raise self._broken("its header is not a JSON object")
        header.pop("__metadata__", None)
        self.entries = {key: self._entry(key, one, 8 + length) for key, one in header.items()}
        self._require_whole(8 + length, size)

    def read(self, name: str) -> np.ndarray:
        """The tensor in its stored dtype; the caller owns the memory.

        Raises:
          UserError: the file has become shorter.
        """
        entry = self.entries[name]
        raw = self._ranges(entry.begin, entry.end)
        if len(raw) != entry.end - entry.begin:
            raise self._broken(f"{name!r} ends early")
        kind = DTYPES.get(entry.dtype)
        assert kind is not None  # the caller has refused others
        return np.frombuffer(raw, kind).reshape(entry.shape)

    def _entry(self, name: str, raw: Any, offset: int) -> Entry:
        try:
            shape = tuple(raw["shape"])
            begin, end = raw["data_offsets"]
            dtype = str(raw["dtype"])
        except (KeyError, TypeError, ValueError):
            raise self._broken(f"its header does not describe {name!r}") from None
        if any(type(one) is not int or one < 0 for one in (*shape, begin, end)):
            raise self._broken(f"shape and place of {name!r} are not whole numbers")
        kind = DTYPES.get(dtype)
        if kind is not None and end - begin != math.prod(shape) * kind.itemsize:
            raise self._broken(f"{name!r} has {end - begin} bytes, its shape says otherwise")
        return Entry(dtype, shape, offset + begin, offset + end)

    def _require_whole(self, begin: int, size: int) -> None:
        """The tensors fill the file, each byte once."""
        place = begin
        for entry in sorted(self.entries.values(), key=lambda one: (one.begin, one.end)):
            if entry.begin != place:
                raise self._broken("its tensors overlap or leave a gap")
            place = entry.end
        if place != size:
            raise self._broken(f"it has {size:,} bytes, its header says {place:,}")

    def _broken(self, why: str) -> UserError:
        return UserError(
            f"{self.name} is not a complete safetensors file ({why}): download it again."
        )


def open_local(path: Path) -> TensorFile:
    """The tensors of a file on a disk; raises `UserError` as `TensorFile` does."""

    def ranges(begin: int, end: int) -> memoryview:
        with path.open("rb", buffering=0) as file:
            file.seek(begin)
            return _read(file, end - begin)

    return TensorFile(str(path), path.stat().st_size, ranges)


def _read(file: Any, size: int) -> memoryview:
    """`size` bytes or what is left: one read gives at most 2 GiB."""
    raw, filled = np.empty(size, np.uint8).data, 0  # a bytearray would be set to zero first
    while filled < size and (count := file.readinto(raw[filled:])):
        filled += count
    return raw[:filled]


def write(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, parts: Iterable[np.ndarray]
) -> None:
    """Writes a file; memory holds one tensor at a time.

    Args:
      shapes: name → shape.
      dtype: of all tensors.
      parts: the tensors in the order of `shapes`, contiguous, with `dtype`.

    Raises:
      OSError: the file cannot be written.
    """
    kind = next(name for name, known in DTYPES.items() if known == dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        end = place + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [place, end]}
        place = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for array in parts:
            file.write(array.reshape(-1).view(np.uint8).data)  # no copy
