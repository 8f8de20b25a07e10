"""Between the named tensors of Hugging Face and stacked arrays, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_jax.convert.expert_tensor import ExpertTensor
from llm_jax.convert.tensors import Absent, Tensor, flat
from llm_jax.models.protocol import parameter_shapes

if TYPE_CHECKING:
    from llm_jax.train.layer_save import LayeredArray, Place

Params = dict[str, Any]


class _Slots:
    """Stands for an array of the tree: gives a new array for each place that is written to."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        self.made: dict[Place, np.ndarray] = {}

    def __getitem__(self, place: Place) -> np.ndarray:
        return self.made.setdefault(place, np.empty(self._shape[len(place) :], self._dtype))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[()]


def layered(
    config: Any,
    tensors: Sequence[Tensor | ExpertTensor | Absent],
    dtype: np.dtype,
    read: Callable[[Any], Any],
) -> Params:
    """The parameters of an architecture as `LayeredArray`, made of tensors when they are written.

    Args:
      config: as `model_of` takes it.
      tensors: all of the architecture's.
      dtype: of the arrays.
      read: returns the values of a tensor; None of one that is absent.
    """
    from llm_jax.train.layer_save import LayeredArray  # imports Orbax

    shapes = flat(parameter_shapes(config))
    sources: dict[str, list[Tensor | ExpertTensor | Absent]] = {}
    leading: dict[str, int] = {}
    for tensor in tensors:
        for path in dict.fromkeys(leaf.path for leaf in tensor.leaves):
            sources.setdefault(path, []).append(tensor)
        for leaf in tensor.leaves:
            leading[leaf.path] = len(leaf.place)

    def array(path: str, shape: tuple[int, ...]) -> LayeredArray:
        def parts() -> Iterator[tuple[Place, np.ndarray]]:
            for tensor in sources[path]:
                slots = {key: _Slots(leaf.shape, dtype) for key, leaf in shapes.items()}
                tensor.write(read(tensor), _nested(slots))
                yield from slots[path].made.items()

        return LayeredArray(shape, dtype, parts, leading[path])

    return _nested({path: array(path, leaf.shape) for path, leaf in shapes.items()})


def _nested(leaves: dict[str, Any]) -> Params:
    """Inverse of `flat`."""
    tree: Params = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        place = tree
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = leaf
    return tree
