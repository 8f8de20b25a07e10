"""Products of rows, sorted by group, with the matrix of their group, and their gradients.

Legend in addition to the project's: r rows sorted by expert, F width of one expert.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from llm_jax.models.common import tgmm
from llm_jax.parallel.platform import platform


def _ragged_product(
    over_a: int, over_b: int, groups: list[int]
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """`ragged_dot` with groups of rows, over axis `over_a` of the rows and `over_b` of the other.

    XLA for TPU cannot compile batched ragged products. A pipeline's `vmap` makes them (of size 1 on
    each device), so here a batch runs one product after another.
    """
    contracted = ((over_a,), (over_b,))
    numbers = jax.lax.RaggedDotDimensionNumbers((contracted, ((), ())), [0], groups)
    return jax.custom_batching.sequential_vmap(
        lambda a, b, sizes_E: jax.lax.ragged_dot_general(a, b, sizes_E, numbers)
    )


_product = _ragged_product(1, 1, [0])
_product_with_transposed = _ragged_product(1, 2, [0])
_plain_sum_by_group = _ragged_product(0, 0, [])


def _sum_by_group(x_rD: jax.Array, dy_rF: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """(E, D, F): the gradient of each group's matrix."""
    if platform() == "tpu" and tgmm.takes(x_rD.shape[0], x_rD.dtype):
        return jax.custom_batching.sequential_vmap(tgmm.sum_by_group)(x_rD, dy_rF, sizes_E)
    return _plain_sum_by_group(x_rD, dy_rF, sizes_E)


@jax.custom_vjp
def ragged_dot(x_rD: jax.Array, w_EDF: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """(r, F): each row times the matrix of its group; the rows are sorted by group."""
    return _product(x_rD, w_EDF, sizes_E)


def _ragged_dot_bwd(saved, dy_rF):
    x_rD, w_EDF, sizes_E = saved
    dx_rD = _product_with_transposed(dy_rF, w_EDF, sizes_E)
    return dx_rD, _sum_by_group(x_rD, dy_rF, sizes_E), None


ragged_dot.defvjp(lambda x, w, sizes: (_product(x, w, sizes), (x, w, sizes)), _ragged_dot_bwd)
