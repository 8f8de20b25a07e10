"""Attention sinks, and values of another size than keys, in every implementation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import model_config, packed_batch, relative_error

from llm_jax.attention import splash
from llm_jax.attention.blockwise import blockwise_attention
from llm_jax.attention.choose import attention_choice
from llm_jax.attention.mask import Mask, Scores, visible
from llm_jax.attention.reference import reference_attention
from llm_jax.attention.ring import split_attention, zigzag
from llm_jax.config import ComputeConfig, ConfigError, LatentConfig, ParallelConfig
from llm_jax.models.common.attend import scores
from llm_jax.parallel.mesh import make_mesh

B, N, K = 2, 4, 2
MASK = Mask(window=19)


def inputs(T: int, H: int, V: int) -> tuple[Any, ...]:
    """q, k, v, sinks, and the segments of packed documents."""
    rng = np.random.default_rng(0)
    shapes = (B, T, N, H), (B, T, K, H), (B, T, K, V), (N,)
    return *(rng.standard_normal(shape, np.float32) for shape in shapes), packed_batch(B, T)[
        "segments"
    ]


def by_definition(q, k, v, sinks, segments, how: Scores) -> np.ndarray:
    """A softmax over the keys and the sink, whose value is zero; one query at a time, float64."""
    T, V = q.shape[1], v.shape[-1]
    out = np.zeros((B, T, N, V))
    for b, t, n in np.ndindex(B, T, N):
        seen = [
            s
            for s in range(t + 1)
            if segments[b, s] == segments[b, t] and t - s < (MASK.window or T)
        ]
        products = k[b, seen, n // (N // K)].astype(np.float64) @ q[b, t, n].astype(np.float64)
        weights = np.exp(how.scale * products)
        out[b, t, n] = weights / (weights.sum() + np.exp(sinks[n])) @ v[b, seen, n // (N // K)]
    return out


def value_and_gradients(path: Any, args: tuple[Any, ...]) -> Any:
    q, _, v = args[:3]
    pull = np.random.default_rng(1).standard_normal((*q.shape[:3], v.shape[-1]), np.float32)

    def weighted(*parts: Any) -> Any:
        out = path(*parts)
        return (out * pull).sum(), out

    made = jax.jit(jax.value_and_grad(weighted, (0, 1, 2, 3), has_aux=True))(*args[:4])
    return made[0][1], made[1]


def reference(args: tuple[Any, ...], how: Scores) -> Any:
    T = args[0].shape[1]
    seen = visible(MASK, jnp.asarray(args[4]), slice(0, T), slice(0, T))
    return value_and_gradients(
        lambda q, k, v, sinks: reference_attention(q, k, v, seen, how, sinks), args
    )


@pytest.mark.slow
def test_blocks_and_reference_are_the_equation() -> None:
    args, how = inputs(30, 8, 12), Scores(8, 0.3, value_dim=12, sinks=True)
    plain, plain_grads = reference(args, how)
    assert relative_error(plain, by_definition(*args, how)) < 1e-6
    blocks, block_grads = value_and_gradients(
        lambda q, k, v, sinks: blockwise_attention(
            q, k, v, jnp.asarray(args[4]), MASK, how, sinks, block=8
        ),
        args,
    )
    assert relative_error(blocks, plain) < 1e-6
    assert relative_error(block_grads, plain_grads, least=1.0) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ring", pytest.param("gather", marks=pytest.mark.slow)])
def test_a_split_length_is_the_equation(kind: Any) -> None:
    args, how = inputs(32, 8, 12), Scores(8, 0.3, value_dim=12, sinks=True)
    order = zigzag(32, 4)

    def split(q: Any, k: Any, v: Any, sinks: Any) -> Any:
        parts = (x[:, order] for x in (q, k, v, jnp.asarray(args[4])))
        return split_attention(*parts, MASK, how, sinks, kind=kind)[:, np.argsort(order)]

    with jax.set_mesh(make_mesh(ParallelConfig(data=1, context=4, tensor=2))):
        found = value_and_gradients(split, args)
    wanted = reference(args, how)
    assert relative_error(found[0], wanted[0]) < 1e-5
    assert relative_error(found[1], wanted[1], least=1.0) < 1e-5


@pytest.mark.slow
def test_splash_is_the_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is interpreted, in blocks of which one of four is empty; also over a mesh."""
    monkeypatch.setattr(splash, "BLOCKS", (128,))
    args, how = inputs(256, 64, 128), Scores(64, 0.125, value_dim=128, sinks=True)
    wanted = reference(args, how)

    def path(q: Any, k: Any, v: Any, sinks: Any) -> Any:
        return splash.splash_attention(q, k, v, jnp.asarray(args[4]), MASK, how, sinks)

    with jax.set_mesh(make_mesh(ParallelConfig(data=2, tensor=2), jax.devices()[:4])):
        found = value_and_gradients(path, args)
    assert relative_error(found[0], wanted[0]) < 1e-5
    assert relative_error(found[1], wanted[1], least=1.0) < 1e-5


@pytest.mark.parametrize(
    ("fields", "platform", "words"),
    [
        ({"head_dim": 64, "attn_sinks": True}, "gpu", "no attention sinks (model.attn_sinks)"),
        ({"value_dim": 32}, "gpu", "not model.latent.value_dim = 32 beside model.head_dim = 128"),
        ({"value_dim": 32}, "tpu", "model.latent.value_dim that is a multiple of 64, not 32"),
    ],
)
def test_what_a_kernel_cannot_do_falls_back_and_is_said(
    fields: dict[str, Any], platform: str, words: str
) -> None:
    if size := fields.pop("value_dim", None):
        latent = LatentConfig(kv_rank=16, rope_dim=64, value_dim=size)
        fields = {"latent": latent, "head_dim": 128, "num_kv_heads": 8}
    how = scores(model_config(**fields))
    kind, reason = attention_choice(how, ComputeConfig(), 256, platform)
    assert kind == "blockwise"
    assert words in reason
    asked: Any = {"tpu": "splash", "gpu": "cudnn"}[platform]
    with pytest.raises(ConfigError, match="choose 'auto' or 'blockwise'"):
        attention_choice(how, ComputeConfig(attention=asked), 256, platform)
