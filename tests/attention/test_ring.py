"""Attention over a split length is attention over the whole, packed documents included."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import compute_config, model_config, packed_batch, relative_error, run_config

from llm_jax.attention.mask import Mask, Scores, visible
from llm_jax.attention.reference import reference_attention
from llm_jax.attention.ring import split_attention, zigzag
from llm_jax.config import ConfigError, DataConfig, MoeConfig, ParallelConfig
from llm_jax.parallel.check import check_divisible
from llm_jax.parallel.mesh import make_mesh

SLOTS = MoeConfig(experts=4, top_k=1, d_ff=8, capacity_factor=1.0)
B, T, N, K, H = 2, 48, 4, 2, 8


def test_zigzag_gives_each_device_an_early_and_a_late_chunk() -> None:
    order = zigzag(16, 4)
    assert order.tolist() == [0, 1, 14, 15, 2, 3, 12, 13, 4, 5, 10, 11, 6, 7, 8, 9]
    visible = (order + 1).reshape(4, -1).sum(axis=1)
    assert visible.tolist() == [34] * 4


@pytest.mark.parametrize(
    ("kind", "causal", "window", "softcap"),
    [
        ("ring", True, 7, None),
        pytest.param("gather", True, None, 0.5, marks=pytest.mark.slow),
        pytest.param("ring", False, 7, None, marks=pytest.mark.slow),
        pytest.param("gather", False, None, None, marks=pytest.mark.slow),
    ],
)
def test_equals_full_attention(
    kind: Literal["ring", "gather"], causal: bool, window: int | None, softcap: float | None
) -> None:
    rng = np.random.default_rng(0)
    q, pull = (rng.standard_normal((B, T, N, H), np.float32) for _ in range(2))
    k, v = (rng.standard_normal((B, T, K, H), np.float32) for _ in range(2))
    segments = packed_batch(B, T)["segments"]
    assert segments.max() > 1
    order, mask, scores = zigzag(T, 4), Mask(causal, window), Scores(H, H**-0.5, softcap)

    def split(q: Any, k: Any, v: Any) -> Any:
        parts = (x[:, order] for x in (q, k, v, jnp.asarray(segments)))
        out = split_attention(*parts, mask, scores, kind=kind)[:, np.argsort(order)]
        return jnp.sum(out * pull), out

    def whole(q: Any, k: Any, v: Any) -> Any:
        seen = visible(mask, jnp.asarray(segments), slice(0, T), slice(0, T))
        out = reference_attention(q, k, v, seen, scores)
        return jnp.sum(out * pull), out

    with jax.set_mesh(make_mesh(ParallelConfig(data=1, context=4, tensor=2))):
        (_, out), grads = jax.jit(jax.value_and_grad(split, (0, 1, 2), has_aux=True))(q, k, v)
    (_, wanted), right = jax.jit(jax.value_and_grad(whole, (0, 1, 2), has_aux=True))(q, k, v)
    assert relative_error(out, wanted) < 1e-5
    assert relative_error(grads, right) < 1e-5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": DataConfig(seq_len=12, batch_size=8)}, "seq_len is 12, but mesh axis 'context'"),
        ({"model": model_config(moe=SLOTS)}, "size 4 splits: set it to None"),
        (
            {"compute": compute_config(attention="reference")},
            "is 'reference', but mesh axis",
        ),
    ],
)
def test_what_a_split_length_cannot_do_is_refused(changes: dict[str, Any], words: str) -> None:
    config = run_config(**changes)
    with pytest.raises(ConfigError) as error:
        check_divisible(config, make_mesh(ParallelConfig(data=2, context=4)))
    assert words in str(error.value)
