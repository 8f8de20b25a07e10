"""Weight gradients of grouped matmuls on a TPU.

XLA for TPU has a kernel that multiplies rows by their group's matrix, but none for the sum over the
rows of each group. There, `ragged_dot_general` becomes one matmul over all rows for each group: E
times the work (81% of the estimated cycles of a step of mixtral_8x7b). The kernel used here is
JAX's own (megablox, based on MegaBlocks, Gale et al. 2022).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

ROWS = (512, 256, 128)
"""Allowed rows per tile; the largest that divides all rows is used."""
WIDTH = 512
"""Most columns per tile. Its float32 sum and the double buffers take 8 MB of a core's 16 MB."""


def takes(rows: int, dtype: jnp.dtype) -> bool:
    """Whether `sum_by_group` supports this number of rows and this dtype."""
    return rows % ROWS[-1] == 0 and dtype == jnp.bfloat16


def sum_by_group(
    x_rD: jax.Array, dy_rF: jax.Array, sizes_E: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Sum of x·dyᵀ over each group's rows, in float32; (E, D, F) in the dtype of `x_rD`.

    Args:
      x_rD, dy_rF: rows, sorted by group; rows after the last group are ignored.
      sizes_E: int32, rows of each group; 0 gives a matrix of zeros.
      interpret: run the kernel as plain JAX, for a test without a TPU.
    """
    # Pallas takes long to import, and only a TPU needs it.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    r, D, F = *x_rD.shape, dy_rF.shape[1]
    tile = next(size for size in ROWS if r % size == 0)
    widths = min(D, WIDTH), min(F, WIDTH)
    return tgmm(x_rD.T, dy_rF, sizes_E, x_rD.dtype, (tile, *widths), interpret=interpret)
