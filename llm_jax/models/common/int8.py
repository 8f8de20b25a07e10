"""Weights of 8 bits, which products read as floats, so that they take less memory.

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


def in_int8(params: Params, specs: Params) -> tuple[Params, Params]:
    """`params` and `specs` with an `Int8` in place of each matrix of a block, and of the output
    matrix. The embedding of tokens, of which a step reads a few rows, is not changed."""
    chosen = jax.tree_util.tree_map_with_path(
        lambda path, spec: spec.role == "matrix" or path[0].key == "unembed",
        specs,
        is_leaf=_is_spec,
    )

    def made(leaf: jax.Array, spec: Spec, choose: bool) -> Any:
        return _rounded(leaf, spec) if choose else leaf

    def declared(spec: Spec, choose: bool) -> Any:
        if not choose:
            return spec
        summed = _summed(spec)
        axes = tuple(None if i in summed else name for i, name in enumerate(spec.axes))
        return Int8(spec, Spec(axes, spec.role))

    return (
        jax.tree.map(made, params, specs, chosen),
        jax.tree.map(declared, specs, chosen, is_leaf=_is_spec),
    )


def as_floats(params: Params, dtype: str, x: jax.Array) -> Params:
    """`params` with the floats, in `dtype`, that each `Int8` stands for.

    In a compiled step, a matrix is converted where it is used: there are never floats of all.
    """

    def floats(leaf: Any) -> Any:
        if not isinstance(leaf, Int8):
            return leaf
        values, _ = jax.lax.optimization_barrier((leaf.values, x))
        return (values.astype(jnp.float32) * leaf.factors).astype(dtype)

    return jax.tree.map(floats, params, is_leaf=lambda leaf: isinstance(leaf, Int8))


def _rounded(leaf: jax.Array, spec: Spec) -> Int8:
    wide = leaf.astype(jnp.float32)
    most = jnp.max(jnp.abs(wide), axis=_summed(spec), keepdims=True)
    factors = jnp.where(most > 0, most, 1.0) / LARGEST
    return Int8(jnp.round(wide / factors).astype(jnp.int8), factors)


def _summed(spec: Spec) -> tuple[int, ...]:
    """The axes that a product with the matrix sums over: all but the last where it writes to the
    residual stream, the first otherwise; and each expert is a matrix."""
    own = [i for i, name in enumerate(spec.axes) if name != "experts"]
    return tuple(own[:-1]) if spec.axes[-1] in ("embed", "expert_embed") else (own[0],)


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, Spec)
