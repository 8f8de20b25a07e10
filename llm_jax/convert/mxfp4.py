"""Reads MXFP4 weights: 4-bit numbers in blocks of 32 that share a power of two.

OCP Microscaling Formats (Rouhani et al. 2023): a number is E2M1, the scale of a block is E8M0. As
gpt-oss stores them, NAME_blocks (E, F, G, 16) has two numbers per byte, the low half first, and
NAME_scales (E, F, G) one scale for each block. Together they are the tensor NAME (E, 32·G, F).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from llm_jax.config import UserError
from llm_jax.convert.shards import FLOATS, Weights
from llm_jax.convert.tensor_file import TensorFile

POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
VALUES = np.array([*POSITIVE, *(-value for value in POSITIVE)], np.float32)
"""E2M1: the number of each code, the sign in the highest bit."""
BIAS, NOT_A_NUMBER = 127, 255
"""Of E8M0: a scale s is 2^(s - 127), and 255 is not a number."""
BLOCKS, SCALES = "_blocks", "_scales"


def numbers(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The float32 values (E, 32·G, F) of uint8 `blocks` (E, F, G, 16) and `scales` (E, F, G)."""
    halves = np.stack([blocks & 15, blocks >> 4], axis=-1)
    values = VALUES[halves.reshape(*scales.shape, -1)]
    factors = np.ldexp(np.float32(1), scales.astype(np.int32) - BIAS)
    factors = np.where(scales == NOT_A_NUMBER, np.float32(np.nan), factors)
    values *= factors[..., None]
    return np.ascontiguousarray(values.reshape(*scales.shape[:2], -1).swapaxes(1, 2))


class Mxfp4Weights(Weights):
    """The tensors in a folder that is not trusted; pairs of blocks and scales are one tensor.

    Raises:
      UserError: as `Weights` does; or a pair is not complete, or of shapes that do not fit.
    """

    def __init__(self, folder: Path, elsewhere: Callable[[str], TensorFile] | None = None) -> None:
        super().__init__(folder, elsewhere, types=(*FLOATS, "U8"))
        self._pairs = {name.removesuffix(BLOCKS) for name in self.shapes if name.endswith(BLOCKS)}
        for name in self._pairs:
            blocks, scales = self.shapes.pop(name + BLOCKS), self.shapes.pop(name + SCALES, None)
            if scales is not None:
                self._require_bytes(name + BLOCKS, name + SCALES)
            if scales is None or len(blocks) != 4 or blocks != (*scales, 16):
                raise UserError(
                    f"{folder} has tensor {name + BLOCKS!r} of shape {list(blocks)}, which needs "
                    f"{name + SCALES!r} of the same shape without its last axis of 16, not "
                    f"{None if scales is None else list(scales)}."
                )
            self.shapes[name] = (blocks[0], 32 * blocks[2], blocks[1])
        for name in self.shapes.keys() - self._pairs:
            if self.type_of(name) == "U8":
                raise UserError(
                    f"Tensor {name!r} of {folder} has type U8, but only pairs of NAME{BLOCKS} and "
                    f"NAME{SCALES} are read as quantised weights."
                )

    def _require_bytes(self, *names: str) -> None:
        for name in names:
            if (kind := self.type_of(name)) != "U8":
                raise UserError(
                    f"Tensor {name!r} of {self._folder} has type {kind}, but quantised weights "
                    "are U8."
                )

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` in its stored dtype, or float32 if it is a pair."""
        if name not in self._pairs:
            return super().read(name)
        return numbers(super().read(name + BLOCKS), super().read(name + SCALES))
