"""Both attention paths compute the equation, in value and gradient."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
from tiny import relative_error

from llm_jax.attention.blockwise import block_size, blockwise_attention
from llm_jax.attention.choose import attention_choice, split_choice
from llm_jax.attention.mask import Mask, Scores, alibi_slopes, visible
from llm_jax.attention.reference import reference_attention
from llm_jax.config import ComputeConfig, ConfigError

B, T, N, K, H = 2, 30, 4, 2, 8  # 30 rows are no multiple of the blocks of 8
SCALE = 0.3
CASES = {
    "causal": {},
    "softcap": {"softcap": 1.5},
    "window_1": {"window": 1},
    "window_5": {"window": 5},
    "window_over_blocks": {"window": 19, "softcap": 1.5},
    "window_longer_than_all": {"window": 99},
    "one_head_per_group": {"kv_heads": N},
    "one_kv_head": {"kv_heads": 1},
    "alibi": {"slopes": (0.5, 0.25, 0.125, 0.0625)},
    "alibi_in_a_window": {"slopes": (0.5, 0.25, 0.125, 0.0625), "window": 12, "kv_heads": N},
    "both_sides": {"causal": False},
    "both_sides_in_a_window_over_blocks": {"causal": False, "window": 12, "softcap": 1.5},
}


def inputs(kv_heads: int = K, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((B, T, n, H), np.float32) for n in (N, kv_heads, kv_heads))
    segments = np.zeros((B, T), np.int32)
    for start in (3, 11, 12, 25):
        segments[0, start:] += 1
    return q, k, v, segments


def by_definition(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    segments: np.ndarray,
    softcap: float | None = None,
    window: int | None = None,
    causal: bool = True,
    slopes: tuple[float, ...] | None = None,
) -> np.ndarray:
    """One query at a time over the keys it may see, in float64."""
    out = np.zeros(q.shape, np.float64)
    group = N // k.shape[2]
    for b, t, n in np.ndindex(B, T, N):
        seen = [
            s
            for s in range(t + 1 if causal else T)
            if segments[b, s] == segments[b, t] and (window is None or abs(t - s) < window)
        ]
        scores = SCALE * k[b, seen, n // group].astype(np.float64) @ q[b, t, n].astype(np.float64)
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        if slopes is not None:
            scores -= slopes[n] * np.abs(t - np.array(seen))
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights / weights.sum() @ v[b, seen, n // group]
    return out


def reference(
    q: Any,
    k: Any,
    v: Any,
    segments: Any,
    softcap: float | None,
    window: int | None,
    causal: bool = True,
    slopes: tuple[float, ...] | None = None,
) -> jax.Array:
    mask = visible(Mask(causal, window), segments, slice(0, T), slice(0, T))
    row = np.arange(T)
    distance = None if slopes is None else (row[:, None] - row)[None]
    return reference_attention(q, k, v, mask, Scores(H, SCALE, softcap, slopes), None, distance)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_both_paths_are_the_equation(case: str) -> None:
    options: dict[str, Any] = {"softcap": None, "window": None, "causal": True} | CASES[case]
    q, k, v, segments = inputs(options.pop("kv_heads", K))
    mask = Mask(options["causal"], options["window"])
    scores = Scores(H, SCALE, options["softcap"], options.get("slopes"))
    weights = np.random.default_rng(1).standard_normal(q.shape, np.float32)

    def value_and_gradients(path: Any) -> Any:
        def weighted(q: Any, k: Any, v: Any) -> Any:
            out = path(q, k, v)
            return (out * weights).sum(), out

        (_, out), grads = jax.jit(jax.value_and_grad(weighted, (0, 1, 2), has_aux=True))(q, k, v)
        return out, grads

    plain, plain_grads = value_and_gradients(
        lambda q, k, v: reference(q, k, v, segments, **options)
    )
    blocks, block_grads = value_and_gradients(
        lambda q, k, v: blockwise_attention(q, k, v, segments, mask, scores, block=8)
    )
    assert relative_error(plain, by_definition(q, k, v, segments, **options)) < 1e-6
    assert relative_error(blocks, plain) < 1e-6
    assert relative_error(block_grads, plain_grads, least=1.0) < 2e-6


def test_slopes_of_alibi() -> None:
    """Those of the paper: of 8 heads 1/2 … 1/256; of 6, the first four of 4 and two between."""
    assert alibi_slopes(8) == tuple(2.0**-i for i in range(1, 9))
    assert alibi_slopes(6) == (2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3)


def test_kernels_without_alibi_are_refused_or_replaced() -> None:
    scores = Scores(64, 0.125, slopes=alibi_slopes(4))
    for platform, kernel in (("tpu", "splash"), ("gpu", "cudnn")):
        choice = attention_choice(scores, ComputeConfig(), 256, platform)
        assert choice.kind == "blockwise"
        assert "ALiBi (model.positions)" in choice.reason
        with pytest.raises(ConfigError, match=r"compute\.attention is .* ALiBi"):
            attention_choice(scores, ComputeConfig(attention=kernel), 256, platform)
    with pytest.raises(ConfigError, match=r"model\.positions is 'alibi'.* parallel\.context to 1"):
        split_choice(scores, "ring", 256, 2, "tpu")


def test_reference_gradients_by_finite_differences() -> None:
    q, k, v, segments = inputs()
    weights = np.random.default_rng(1).standard_normal(q.shape)

    def weighted(q, k, v):
        return (reference(q, k, v, segments, 1.5, 5) * weights).sum()

    grads = jax.jit(jax.grad(weighted, (0, 1, 2)))(q, k, v)
    rng = np.random.default_rng(2)
    for i, grad in enumerate(grads):
        args = [x.astype(np.float64) for x in (q, k, v)]
        direction, step = rng.standard_normal(args[i].shape), 1e-5
        ends = []
        for sign in (1, -1):
            moved = list(args)
            moved[i] = args[i] + sign * step * direction
            ends.append((by_definition(*moved, segments, 1.5, 5) * weights).sum())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(float((np.asarray(grad) * direction).sum()), rel=1e-4)


def test_bfloat16_stays_near_float32() -> None:
    q, k, v, segments = inputs()
    half = [jax.numpy.asarray(x, jax.numpy.bfloat16) for x in (q, k, v)]
    scores = Scores(H, SCALE)
    out = jax.jit(lambda q, k, v: blockwise_attention(q, k, v, segments, Mask(), scores, block=8))(
        *half
    )
    assert out.dtype == jax.numpy.bfloat16
    wanted = by_definition(*(np.asarray(x, np.float32) for x in half), segments)
    assert relative_error(np.asarray(out, np.float64), wanted) < 2**-6


def test_blocks_stay_few() -> None:
    for length in (1, 128, 129, 1024, 4096, 4097, 8192, 131_072):
        size = block_size(length)
        assert size % 128 == 0
        assert math.ceil(length / size) <= 32
    assert block_size(4096) == 128
    assert block_size(8192) == 256
