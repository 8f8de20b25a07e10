"""The parameter tree of the Transformer ↔ the named tensors of a Hugging Face checkpoint.

Torch's Linear stores (out, in), the tree (in…, out…). The Conv1D of GPT-2 stores (in, out), with
query, key and value in one tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import ml_dtypes
import numpy as np

from llm_jax.config import UserError
from llm_jax.convert.expert_tensor import ExpertTensor
from llm_jax.convert.families import naming_of
from llm_jax.convert.families.family import Naming
from llm_jax.convert.others import other_named
from llm_jax.models.protocol import model_of, parameter_shapes
from llm_jax.train.host_arrays import aligned_empty, copy_matrix

Params = dict[str, Any]
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

PER_EXPERT = ("blocks/moe/gate", "blocks/moe/up", "blocks/moe/down")
OF_ALL_EXPERTS = (*PER_EXPERT, *(f"{path}_bias" for path in PER_EXPERT))
"""Leaves whose first axis is that of the experts."""
VECTORS = ("_bias", "scale", "bias", "/alpha_p", "/alpha_n", "/sinks")
"""Ends of the paths of leaves that are not matrices."""


@dataclass(frozen=True)
class Leaf:
    """One array of the tree. Of a stacked array: one layer, or one expert of a layer."""

    path: str
    shape: tuple[int, ...]
    """Without the axes of `place`."""
    place: tuple[int, ...] = ()
    """Row of the stack, and expert."""
    layer: int | None = None
    groups: int = 1
    """Key/value heads, if the tensor has the heads that belong together side by side."""
    order: tuple[int, ...] | None = None
    """The numbers of a head in the order of the file; None: the same."""

    def of(self, params: Params) -> np.ndarray:
        array: Any = params
        for key in self.path.split("/"):
            array = array[key]
        return np.asarray(array[self.place] if self.place else array)

    @property
    def table(self) -> bool:
        """Whether it is the embedding of tokens, positions or types."""
        return self.path.startswith("embed/")

    @property
    def matrix(self) -> tuple[int, int] | None:
        """(in, out) of a projection, None for tables and vectors."""
        if self.table or self.path.endswith(VECTORS):
            return None
        inputs = 2 if self.path.endswith("/attn/o") else 1
        return math.prod(self.shape[:inputs]), math.prod(self.shape[inputs:])

    @property
    def parted(self) -> tuple[int, ...]:
        """The shape of its part of a tensor: (in if it is a matrix, groups, numbers of a group)."""
        inputs, outputs = self.matrix or (0, math.prod(self.shape))
        return ((inputs,) if self.matrix else ()) + (self.groups, outputs // self.groups)

    def part(self, params: Params) -> np.ndarray:
        """Its values, in the order and the shape of its part of a tensor."""
        array = self.of(params)
        return (array if self.order is None else array[..., self.order]).reshape(self.parted)

    def put(self, part: np.ndarray, params: Params) -> None:
        """Inverse of `part`."""
        if self.matrix is not None and self.order is None:
            copy_matrix(part.reshape(self.matrix), self.of(params).reshape(self.matrix))
            return
        place = ... if self.order is None else (..., list(self.order))
        self.of(params)[place] = part.reshape(self.shape)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a Hugging Face checkpoint and the leaves that it is made of."""

    name: str
    leaves: tuple[Leaf, ...]
    transposed: bool
    row: bool = False
    """Whether a vector is stored as a matrix of one row."""

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.leaves[0]
        if first.table or self.row:
            return (1, *first.shape) if self.row else first.shape
        *inputs, groups, _ = first.parted
        outputs = groups * sum(leaf.parted[-1] for leaf in self.leaves)
        return (outputs, *inputs) if self.transposed else (*inputs, outputs)

    def read(self, params: Params, dtype: np.dtype) -> np.ndarray:
        """The contiguous tensor with the values of the tree."""
        if self.leaves[0].table:
            tensor = self.leaves[0].of(params)
        else:
            parts = [leaf.part(params) for leaf in self.leaves]
            joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
            tensor = joined.reshape(*joined.shape[:-2], -1)
        tensor = tensor.T if self.transposed else tensor
        tensor = tensor[None] if self.row else tensor
        return np.ascontiguousarray(tensor.astype(dtype, copy=False))

    def write(self, tensor: np.ndarray, params: Params) -> None:
        """Stores the tensor in the NumPy arrays of the tree; its shape must be `self.shape`."""
        tensor, first = tensor.T if self.transposed else tensor, self.leaves[0]
        if first.table:
            first.of(params)[...] = tensor
            return
        tensor = tensor[0] if self.row else tensor
        joined = tensor.reshape(*tensor.shape[:-1], first.groups, -1)
        sizes = [leaf.parted[-1] for leaf in self.leaves]
        parts = np.split(joined, np.cumsum(sizes)[:-1], axis=-1)
        for leaf, part in zip(self.leaves, parts, strict=True):
            leaf.put(part, params)


@dataclass(frozen=True)
class Constant:
    """A tensor with one number that is not a parameter, and the same in every checkpoint."""

    name: str
    value: float
    shape: tuple[int, ...] = ()
    leaves: tuple[Leaf, ...] = ()

    def read(self, params: Params, dtype: np.dtype) -> np.ndarray:
        """The number; `params` does not hold it."""
        return np.array(self.value, dtype)

    def write(self, tensor: np.ndarray, params: Params) -> None:
        """Raises `UserError` unless it is the same number, rounded to bfloat16 or better."""
        if not math.isclose(float(tensor), self.value, rel_tol=2**-7):
            raise UserError(
                f"Tensor {self.name!r} is {float(tensor):g}: only {self.value:g} is supported."
            )


@dataclass(frozen=True)
class Absent:
    """A leaf that the class has in its last layer only, in another layer: zeros, and not on file.

    Attributes:
      name: that the tensor would have.
    """

    name: str
    leaves: tuple[Leaf, ...]

    def require_zero(self, params: Params, model_type: str) -> None:
        """Raises `UserError` unless all its values are zero."""
        if np.any(self.leaves[0].of(params)):
            raise UserError(
                f"{model_type} has no tensor {self.name!r}, only that of the last layer, and this "
                "model's is not zero: export it with --as gpt_neox."
            )

    def write(self, tensor: None, params: Params) -> None:
        """Stores the zeros."""
        self.leaves[0].of(params)[...] = 0


Stored = Tensor | ExpertTensor | Constant
"""What is on file."""


def tensors(config: Any, model_type: str) -> list[Stored]:
    """Every tensor of the checkpoint, embedding first, then by layer, then constants; a tied matrix
    once."""
    return [one for one in with_absent(config, model_type) if not isinstance(one, Absent)]


def with_absent(config: Any, model_type: str) -> list[Stored | Absent]:
    """The same, and the parameters that a class has not.

    Args:
      config: an architecture, as `model_of` takes it.
    """
    shapes = flat(parameter_shapes(config))
    other = other_named(model_type)
    naming = other.naming(config) if other else naming_of(model_type)
    names = dict(naming.names)
    if naming.by_block:
        names |= naming.by_block.get(config.parallel_block, {})
    stacks = model_of(config).layout(config).stacks
    leaves: list[Leaf] = []
    for path, found in shapes.items():
        stack = path.split("/")[0]
        if stack not in stacks:
            leaves.append(Leaf(path, found.shape))
            continue
        how = _heads(path, config, naming)
        for row, number in enumerate(stacks[stack]):
            layer = row if naming.own_numbers else number
            if path in PER_EXPERT and naming.experts == "each":
                experts = range(found.shape[1])
                leaves += [Leaf(path, found.shape[2:], (row, e), layer) for e in experts]
            else:
                leaves.append(Leaf(path, found.shape[1:], (row,), layer, **how))
    order = {path: i for i, path in enumerate(names)}
    leaves.sort(key=lambda leaf: (_place(leaf), order[_name_of(leaf)], leaf.place))
    joined: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        name = names[_name_of(leaf)].format(leaf.layer, *leaf.place[1:])
        joined.setdefault(name, []).append(leaf)
    last = config.num_layers - 1
    found = [_tensor(name, tuple(group), naming, last) for name, group in joined.items()]
    layers = range(config.num_layers)
    numbers = [(name.format(i), value) for name, value in naming.constants.items() for i in layers]
    return [*found, *(Constant(name, value) for name, value in numbers)]


def _tensor(
    name: str, leaves: tuple[Leaf, ...], naming: Naming, last: int
) -> Tensor | ExpertTensor | Absent:
    if leaves[0].path in naming.last_layer_only and leaves[0].layer != last:
        return Absent(name, leaves)
    if naming.experts != "each" and leaves[0].path in OF_ALL_EXPERTS:
        return ExpertTensor(name, leaves, naming.experts == "alternating")
    row = leaves[0].path in naming.rows
    return Tensor(name, leaves, _is_transposed(leaves[0], naming.linear), row)


def _heads(path: str, config: Any, naming: Naming) -> dict[str, Any]:
    """`groups` and `order` of a leaf: how the file arranges queries, keys and values."""
    name = path.split("/attn/")[-1].removesuffix("_bias")
    grouped = naming.grouped and name in ("q", "k", "v")
    order = None
    if naming.pairs != "halves" and name in ("q", "k", "q_up", "k_rope"):
        rotated = config.rotary_dim
        order = head_order(naming.pairs, rotated, rotated if config.latent else config.head_dim)
        if config.latent and name != "k_rope":  # the rotated numbers are the last of a head
            plain = config.head_dim - rotated
            order = (*range(plain), *(plain + i for i in order))
    return {"groups": config.num_kv_heads if grouped else 1, "order": order}


def head_order(pairs: str, rotated: int, size: int) -> tuple[int, ...]:
    """Where the numbers of a head of `size` are in our order, by their place in the file.

    Here, the pairs of the first `rotated` numbers are (i, i + rotated/2). On file, they are
    `interleaved`, (2i, 2i + 1), or `swapped`, (i + rotated/2, i): rotated the other way.
    """
    first, second = np.arange(rotated).reshape(2, -1)
    own = np.stack([first, second], axis=1) if pairs == "interleaved" else [*second, *first]
    return (*np.ravel(own).tolist(), *range(rotated, size))


def _name_of(leaf: Leaf) -> str:
    """Path of the leaf in a table of names; layers without experts are named as in dense models."""
    return leaf.path.replace("dense_blocks/", "blocks/")


def _place(leaf: Leaf) -> float:
    if leaf.layer is not None:
        return leaf.layer
    return -1 if leaf.path.startswith("embed/") else math.inf


def _is_transposed(leaf: Leaf, linear: bool) -> bool:
    return leaf.matrix is not None and (linear or leaf.path == "unembed")


def flat(tree: Params) -> dict[str, Any]:
    """Leaves of a nested dict by their path, joined with '/'."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found["/".join(entry.key for entry in path)] = leaf
    return found


def empty(config: Any) -> Params:
    """The tree of `init` as float32 NumPy arrays, not yet filled, which a CPU takes as they are."""
    return jax.tree.map(lambda leaf: aligned_empty(leaf.shape), parameter_shapes(config))
