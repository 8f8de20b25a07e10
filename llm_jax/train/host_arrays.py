"""NumPy arrays that JAX takes as they are, and their fast copies."""

from __future__ import annotations

import math

import numpy as np

ALIGNED = 64
"""Bytes, of which XLA wants an address to be a multiple. Else it copies the array."""
COLUMNS = 32
"""That are copied at once of a transposed matrix: what a core's cache holds of their lines."""


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array that is not yet filled, at an address that a CPU's programs can use."""
    size = 4 * math.prod(shape)
    raw = np.empty(size + ALIGNED, np.uint8)
    begin = -raw.ctypes.data % ALIGNED
    return raw[begin : begin + size].view(np.float32).reshape(shape)


def copy_matrix(matrix: np.ndarray, target: np.ndarray) -> None:
    """Copies a matrix; one that is transposed in memory a few columns at a time, which is two to
    four times as fast."""
    transposed = matrix.strides[0] < matrix.strides[1]
    step = COLUMNS if transposed else max(1, matrix.shape[1])
    for i in range(0, matrix.shape[1], step):
        target[:, i : i + step] = matrix[:, i : i + step]
