"""Weights of 8 bits, which products read as floats.

Each output channel of a matrix has a factor of its own, its largest weight over 127, so that one
large weight coarsens its channel alone (Dettmers et al. 2022, "LLM.int8()", §2.1). Activations stay
as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.models.common.parameter import Spec

Params = dict[str, Any]
LARGEST = 127


class Int8(NamedTuple):
    """A matrix in 8 bits; in a tree of specs, a `Spec` in place of each array.

    Attributes:
      values: int8, in the shape of the matrix.
      factors: float32, of size 1 along the axes that a product sums over.
    """

    values: Any
    factors: Any


def takes_int8(place: str, spec: Spec) -> bool:
    """Whether the leaf in `place` of the tree (`unembed`, `layers`, …) is kept in 8 bits: matrices
    of blocks and the output matrix. The embedding, of which a step reads a few rows, is not."""
    return spec.role == "matrix" or place == "unembed"


def in_int8(leaf: jax.Array, spec: Spec) -> tuple[Int8, Int8]:
    """A matrix in 8 bits, and the specs of both arrays."""
    summed = _summed(spec)
    wide = leaf.astype(jnp.float32)
    most = jnp.max(jnp.abs(wide), axis=summed, keepdims=True)
    factors = jnp.where(most > 0, most, 1.0) / LARGEST
    axes = tuple(None if i in summed else name for i, name in enumerate(spec.axes))
    made = Int8(jnp.round(wide / factors).astype(jnp.int8), factors)
    return made, Int8(spec, Spec(axes, spec.role))


def as_floats(params: Params, dtype: str, x: jax.Array) -> Params:
    """`params` with the floats, in `dtype`, that each `Int8` stands for.

    A matrix may be converted where it is used. XLA on CPU does not: it converts all of them first.
    """

    def floats(leaf: Any) -> Any:
        if not isinstance(leaf, Int8):
            return leaf
        values, _ = jax.lax.optimization_barrier((leaf.values, x))
        return (values.astype(jnp.float32) * leaf.factors).astype(dtype)

    return jax.tree.map(floats, params, is_leaf=lambda leaf: isinstance(leaf, Int8))


def _summed(spec: Spec) -> tuple[int, ...]:
    """The axes that a product with the matrix sums over: all but the last where it writes to the
    residual stream, the first otherwise; and each expert is a matrix."""
    own = [i for i, name in enumerate(spec.axes) if name != "experts"]
    return tuple(own[:-1]) if spec.axes[-1] in ("embed", "expert_embed") else (own[0],)
