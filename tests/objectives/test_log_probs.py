"""Log-probabilities of single tokens: their sum is the fused loss, and so is its gradient."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from tiny import relative_error

from llm_jax.objectives.cross_entropy import cross_entropy
from llm_jax.objectives.log_probs import token_log_probs

B, T, D, V = 3, 20, 16, 50


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, T, D), np.float32)
    w = 0.5 * rng.standard_normal((D, V), np.float32)
    targets = rng.integers(0, V, (B, T), dtype=np.int32)
    targets[rng.random((B, T)) < 0.2] = -1
    return x, w, targets


def test_equals_log_softmax() -> None:
    x, w, targets = arrays()
    ours = token_log_probs(x, w, targets, chunk_tokens=15)
    full = np.asarray(jax.nn.log_softmax(x @ w))
    wanted = np.take_along_axis(full, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    assert ours.shape == (B, T)
    assert np.abs(np.asarray(ours) - np.where(targets >= 0, wanted, 0)).max() < 2e-6
    assert not np.asarray(ours)[targets < 0].any()


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_their_sum_is_the_fused_loss(softcap: float | None) -> None:
    x, w, targets = arrays()

    def summed(x: Any, w: Any) -> Any:
        return -token_log_probs(x, w, targets, softcap, 15).sum()

    def fused(x: Any, w: Any) -> Any:
        return cross_entropy(x, w, targets, np.float32(1), softcap, 15, 0.0)[0]

    one, one_grads = jax.jit(jax.value_and_grad(summed, (0, 1)))(x, w)
    two, two_grads = jax.jit(jax.value_and_grad(fused, (0, 1)))(x, w)
    assert float(one) == pytest.approx(float(two), rel=1e-6)
    assert relative_error(one_grads, two_grads) < 2e-6
