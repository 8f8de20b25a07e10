"""Reads FP8 weights: 8-bit numbers (E4M3) in square blocks that share a factor.

As DeepSeek-V3 stores them (DeepSeek-AI 2024, §3.3.2): NAME (out, in) in F8_E4M3, and NAME_scale_inv
with one factor for each block, the last of a row or column smaller if the size is no multiple.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import UserError
from llm_jax.convert.shards import FLOATS, Weights
from llm_jax.convert.tensor_file import TensorFile

KIND, FACTORS = "F8_E4M3", "_scale_inv"


class Fp8Weights(Weights):
    """The tensors in a folder that is not trusted; a matrix and its factors are one tensor.

    Args:
      block: rows and columns of a block.

    Raises:
      UserError: as `Weights` does; or a matrix has no factors, or of a shape that does not fit.
    """

    def __init__(
        self,
        folder: Path,
        elsewhere: Callable[[str], TensorFile] | None = None,
        block: tuple[int, int] = (128, 128),
    ) -> None:
        super().__init__(folder, elsewhere, types=(*FLOATS, KIND))
        self._block = block
        self._pairs = {name for name in self.shapes if self.type_of(name) == KIND}
        for name in self._pairs:
            shape, factors = self.shapes[name], self.shapes.pop(name + FACTORS, None)
            wanted = tuple(-(-size // part) for size, part in zip(shape, block, strict=False))
            if len(shape) != 2 or factors != wanted or self.type_of(name + FACTORS) == KIND:
                raise UserError(
                    f"{folder} has tensor {name!r} of shape {list(shape)} in FP8, which needs "
                    f"{name + FACTORS!r} of shape {list(wanted)}, not "
                    f"{None if factors is None else list(factors)}."
                )

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` in its stored dtype, or float32 if it was in FP8."""
        values = super().read(name)
        if name not in self._pairs:
            return values
        factors = super().read(name + FACTORS).astype(np.float32)
        for axis, part in enumerate(self._block):
            factors = factors.repeat(part, axis=axis)
        rows, columns = values.shape
        return values.astype(np.float32) * factors[:rows, :columns]


def block_of(raw: dict[str, Any]) -> tuple[int, int]:
    """`weight_block_size` of a config.json whose weights are in FP8; raises `UserError` if it is
    none."""
    found = raw["quantization_config"].get("weight_block_size")
    right = isinstance(found, list) and [type(one) for one in found] == [int, int]
    if not right or min(found) < 1:
        raise UserError(
            f"config.json has quantization_config with weight_block_size {found!r}: give two whole "
            "numbers from 1."
        )
    return found[0], found[1]
