"""Dtypes of the state between steps, and stochastic rounding of float32 to bfloat16.

An update of 1e-3 of a parameter's size is less than half of bfloat16's last digit, so rounding to
nearest would lose it every time. Stochastic rounding keeps it on average: the probability of
rounding up is the distance to the lower neighbour, relative to the gap (Gupta et al. 2015; for
bfloat16 training Zamirai et al. 2020).

The random bits are a hash of the element's position, its leaf and the step. They are the same on
every mesh and after every resume. They cost less than the arithmetic of the step; those of threefry
would cost more (docs/log.md).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from llm_jax.config import OptimConfig
from llm_jax.models.common.parameter import Role

FIRST_MOMENTS = ("mu", "ema")
"""Fields of optax states that have `optim.moment_dtype`."""
SECOND_MOMENTS = ("nu", "v", "v_row", "v_col")
"""Fields of optax states that have `optim.second_moment_dtype`."""


NARROW: tuple[Role, ...] = ("matrix", "table", "positions")
"""Roles of the parameters that may be stored in bfloat16. Others are always float32."""


def as_matrices(params: Any, dtype: str, specs: Any) -> Any:
    """`params` with those of a role in `NARROW` in `dtype`, rounded to nearest."""
    return jax.tree.map(
        lambda leaf, spec: leaf.astype(dtype) if spec.role in NARROW else leaf, params, specs
    )


def as_moments(opt: Any, optim: OptimConfig) -> Any:
    """A float32 optax state with its moments in the dtypes of the config, rounded to nearest."""

    def cast(path: Any, leaf: jax.Array) -> jax.Array:
        fields = [entry.name for entry in path if isinstance(entry, jax.tree_util.GetAttrKey)]
        if any(name in FIRST_MOMENTS for name in fields):
            return leaf.astype(optim.moment_dtype)
        if any(name in SECOND_MOMENTS for name in fields):
            return leaf.astype(optim.second_moment_dtype)
        return leaf

    return jax.tree_util.tree_map_with_path(cast, opt)


def wide(tree: Any) -> Any:
    """`tree` with every bfloat16 leaf in float32, which is exact; other leaves do not change."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf, tree
    )


def stored_like(tree: Any, before: Any, seed: int, step: jax.Array) -> Any:
    """The leaves of `tree` in the dtypes of `before`, rounded stochastically where they differ.

    Args:
      seed, step: together with the leaf and the element, they determine the rounding.
    """
    leaves, structure = jax.tree.flatten(tree)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(before)]
    if all(leaf.dtype == dtype for leaf, dtype in zip(leaves, dtypes, strict=True)):
        return tree
    # Another stream than that of the initial parameters, which is `key(seed)` itself.
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)
    seeds = jax.random.bits(key, (len(leaves),), jnp.uint32)
    rounded = [
        leaf if leaf.dtype == dtype else stochastic_round(leaf, seeds[i])
        for i, (leaf, dtype) in enumerate(zip(leaves, dtypes, strict=True))
    ]
    return jax.tree.unflatten(structure, rounded)


def stochastic_round(x: jax.Array, seed: jax.Array) -> jax.Array:
    """float32 `x` rounded to one of its two bfloat16 neighbours, so that the expectation is `x`.

    Infinity and NaN do not change.

    Args:
      seed: uint32 scalar, drawn at random.
    """
    noise = random_bits(seed, x.shape) >> 16
    # bfloat16 is the upper half of float32. The lower half, divided by 65,536, is the distance of x
    # from the neighbour nearer to 0, relative to the gap.
    raised = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
    upper = jax.lax.bitcast_convert_type((raised >> 16).astype(jnp.uint16), jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), upper, x.astype(jnp.bfloat16))


def random_bits(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 array of `shape`: a hash of each element's position in the whole array and of `seed`.

    The hash is `lowbias32` with two multiplications and three shifts (Wellons 2018,
    nullprogram.com/blog/2018/07/31).
    """
    places = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(len(shape)))
    start = jnp.zeros(shape, jnp.uint32)
    n = functools.reduce(
        lambda n, place: n * jnp.uint32(place[0]) + place[1], zip(shape, places, strict=True), start
    )
    n ^= seed
    n = (n ^ (n >> 16)) * jnp.uint32(0x7FEB352D)
    n = (n ^ (n >> 15)) * jnp.uint32(0x846CA68B)
    return n ^ (n >> 16)
