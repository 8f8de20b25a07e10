"""Weight gradients of grouped matmuls on a TPU.

XLA for TPU has a kernel for rows times the matrix of their group, but none for the sum over each
group's rows: `ragged_dot_general` becomes one matmul of all rows for each group, E times the math
(81% of the estimated cycles of a step of mixtral_8x7b). The kernel is JAX's own (megablox, after
MegaBlocks, Gale et al. 2022).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

ROWS = (512, 256, 128)
"""Rows of a tile, the most that divide all rows."""
WIDTH = 512
"""Most columns of a tile: its float32 sum and the double buffers take 8 MB of a core's 16."""


def takes(rows: int, dtype: jnp.dtype) -> bool:
    """Whether `sum_by_group` can compute with so many rows of this dtype."""
    return rows % ROWS[-1] == 0 and dtype == jnp.bfloat16


def sum_by_group(
    x_rD: jax.Array, dy_rF: jax.Array, sizes_E: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """(E, D, F) in the dtype of `x_rD`: over each group's rows, the sum of x·dyᵀ in float32.

    Args:
      x_rD, dy_rF: rows in the order of their groups; those after the last group do not count.
      sizes_E: int32, rows of each group; 0 gives a matrix of zeros.
      interpret: run the kernel as plain JAX, for a test without a TPU.
    """
    r, D, F = *x_rD.shape, dy_rF.shape[1]
    tile = next(size for size in ROWS if r % size == 0)
    widths = min(D, WIDTH), min(F, WIDTH)
    return tgmm(x_rD.T, dy_rF, sizes_E, x_rD.dtype, (tile, *widths), interpret=interpret)
