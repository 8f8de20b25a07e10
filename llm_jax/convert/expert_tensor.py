"""A tensor that holds the same matrix, or the same two matrices, of all experts of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from llm_jax.convert.tensors import Leaf


@dataclass(frozen=True)
class ExpertTensor:
    """One tensor of all experts of a layer, made of leaves (E, in, out) or, of biases, (E, out)."""

    name: str
    leaves: tuple[Leaf, ...]
    alternating: bool
    """Columns are those of the leaves in turn, (E, in, out); else the rows of one after those of
    the other, (E, out, in)."""

    @property
    def shape(self) -> tuple[int, ...]:
        experts, *inputs, outputs = self.leaves[0].shape
        outputs *= len(self.leaves)
        return (experts, *inputs, outputs) if self.alternating else (experts, outputs, *inputs)

    def read(self, params: dict[str, Any], dtype: np.dtype) -> np.ndarray:
        """The contiguous tensor with the values of the tree."""
        parts = [leaf.of(params) for leaf in self.leaves]
        if self.alternating:
            tensor = np.stack(parts, axis=-1).reshape(self.shape)
        else:
            tensor = np.concatenate([part.swapaxes(1, -1) for part in parts], axis=1)
        return np.ascontiguousarray(tensor.astype(dtype, copy=False))

    def write(self, tensor: np.ndarray, params: dict[str, Any]) -> None:
        """Stores the tensor in the NumPy arrays of the tree; its shape must be `self.shape`."""
        count = len(self.leaves)
        for i, leaf in enumerate(self.leaves):
            if self.alternating:
                part = tensor[..., i::count]
            else:
                part = np.split(tensor, count, axis=1)[i].swapaxes(1, -1)
            leaf.of(params)[...] = part
