"""Weight gradients of grouped matmuls: the TPU's kernel, interpreted, against plain sums."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.models.common import tgmm


@pytest.mark.parametrize(
    "sizes", [(128, 0, 200, 184), (0, 512, 0, 0), (1, 2, 3, 4), (0, 0, 0, 0), (300, 100, 50, 62)]
)
def test_the_kernel_sums_over_each_groups_rows(sizes: tuple[int, ...]) -> None:
    r, D, F = 512, 160, 640  # D fills no tile, F one and a quarter
    x, dy = (
        jax.random.normal(jax.random.key(seed), (r, width)).astype(jnp.bfloat16)
        for seed, width in ((0, D), (1, F))
    )
    found = tgmm.sum_by_group(x, dy, jnp.array(sizes, jnp.int32), interpret=True)
    assert found.shape == (4, D, F)
    assert found.dtype == jnp.bfloat16
    start = 0
    for e, size in enumerate(sizes):
        rows = slice(start, start + size)
        expected = np.asarray(x[rows], np.float32).T @ np.asarray(dy[rows], np.float32)
        made = np.asarray(found[e], np.float32)
        np.testing.assert_allclose(made, expected, atol=0.02, rtol=0.005)
        start += size


def test_what_the_kernel_takes() -> None:
    assert tgmm.takes(128, jnp.dtype("bfloat16"))
    assert not tgmm.takes(100, jnp.dtype("bfloat16"))
    assert not tgmm.takes(128, jnp.dtype("float32"))
