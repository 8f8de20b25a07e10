"""The TPU kernel, interpreted on a CPU, computes the equation; `auto` takes it where it can."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import model_config, relative_error

from llm_jax.attention import splash
from llm_jax.attention.choose import Choice, attention_choice, split_choice
from llm_jax.attention.mask import Mask, Scores, visible
from llm_jax.attention.reference import reference_attention
from llm_jax.attention.ring import zigzag
from llm_jax.config import ComputeConfig, ConfigError, ParallelConfig
from llm_jax.models.common.attend import scores
from llm_jax.parallel.mesh import make_mesh

B, T, N, K, H = 2, 256, 4, 2, 64
SCALE = 0.125
CASES = {
    "causal": (Mask(), Scores(H, SCALE)),
    "softcap_in_a_window_over_blocks": (Mask(window=150), Scores(H, SCALE, 1.5)),
    "both_sides": (Mask(causal=False), Scores(H, SCALE)),
    "both_sides_in_a_window": (Mask(causal=False, window=150), Scores(H, SCALE)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks a side, so that one of four is empty."""
    monkeypatch.setattr(splash, "BLOCKS", (128,))


def inputs(dtype: Any = np.float32) -> list[Any]:
    """q, k, v and packed documents, one of which crosses the border of the blocks."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((B, T, n, H), np.float32) for n in (N, K, K))
    segments = np.zeros((B, T), np.int32)
    segments[0, 30:] += 1
    segments[0, 140:] += 1
    return [*(jnp.asarray(x, dtype) for x in (q, k, v)), jnp.asarray(segments)]


def value_and_gradients(path: Any, args: list[Any]) -> Any:
    weights = np.random.default_rng(1).standard_normal((B, T, N, H), np.float32)

    def weighted(q: Any, k: Any, v: Any) -> Any:
        out = path(q, k, v)
        return (out * weights).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(weighted, (0, 1, 2), has_aux=True))(*args[:3])
    return out, grads


def plain(args: list[Any], rule: tuple[Mask, Scores]) -> Any:
    mask, scores = visible(rule[0], args[3], slice(0, T), slice(0, T)), rule[1]
    return value_and_gradients(lambda q, k, v: reference_attention(q, k, v, mask, scores), args)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_splash_is_the_equation(case: str) -> None:
    args, rule = inputs(), CASES[case]
    out, grads = value_and_gradients(
        lambda q, k, v: splash.splash_attention(q, k, v, args[3], *rule), args
    )
    wanted, wanted_grads = plain(args, rule)
    assert relative_error(out, wanted) < 1e-5
    assert relative_error(grads, wanted_grads, least=1.0) < 1e-5


def test_splash_over_a_mesh_is_the_same() -> None:
    args, rule = inputs(), CASES["causal"]
    mesh = make_mesh(ParallelConfig(data=2, tensor=2), jax.devices()[:4])
    with jax.set_mesh(mesh):
        split = value_and_gradients(
            lambda q, k, v: splash.splash_attention(q, k, v, args[3], *rule), args
        )
    wanted = plain(args, rule)
    assert relative_error(split[0], wanted[0]) < 1e-5
    assert relative_error(split[1], wanted[1], least=1.0) < 1e-5


def test_bfloat16_stays_near_float32() -> None:
    args, rule = inputs(jnp.bfloat16), CASES["causal"]
    out = jax.jit(lambda q, k, v: splash.splash_attention(q, k, v, args[3], *rule))(*args[:3])
    assert out.dtype == jnp.bfloat16
    wanted, _ = plain([jnp.asarray(x, jnp.float32) for x in args[:3]] + args[3:], rule)
    assert relative_error(np.asarray(out, np.float64), wanted) < 2**-6


def test_auto_is_the_platforms_kernel() -> None:
    model, bf16 = scores(model_config(head_dim=64)), ComputeConfig()
    assert attention_choice(model, bf16, 256, "cpu") == Choice("blockwise")
    assert attention_choice(model, bf16, 256, "tpu") == Choice("splash")
    assert attention_choice(model, bf16, 256, "gpu") == Choice("cudnn")
    assert attention_choice(model, ComputeConfig(attention="reference"), 256, "tpu") == Choice(
        "reference"
    )


@pytest.mark.parametrize(
    ("fields", "dtype", "seq_len", "platform", "words"),
    [
        ({"head_dim": 64}, "bfloat16", 200, "tpu", "multiple of 128, not 200"),
        ({"head_dim": 80}, "bfloat16", 256, "tpu", "multiple of 64, not 80"),
        ({"head_dim": 64}, "float32", 256, "gpu", "not 'float32'"),
        ({"head_dim": 256}, "bfloat16", 256, "gpu", "at most 128, not 256"),
        ({"head_dim": 64, "attn_softcap": 50.0}, "bfloat16", 256, "gpu", "no soft-cap"),
    ],
)
def test_what_a_kernel_cannot_do_is_said(
    fields: dict[str, Any], dtype: Any, seq_len: int, platform: str, words: str
) -> None:
    model = scores(model_config(**fields))
    kind, reason = attention_choice(model, ComputeConfig(dtype=dtype), seq_len, platform)
    assert kind == "blockwise"
    assert words in reason
    asked: Any = {"tpu": "splash", "gpu": "cudnn"}[platform]
    with pytest.raises(ConfigError, match="choose 'auto' or 'blockwise'"):
        attention_choice(model, ComputeConfig(dtype=dtype, attention=asked), seq_len, platform)


def test_a_kernel_of_another_platform_is_refused() -> None:
    with pytest.raises(ConfigError, match="splash does not run on a cpu"):
        attention_choice(scores(model_config()), ComputeConfig(attention="splash"), 256, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("causal", "window"),
    [
        pytest.param(True, None, marks=pytest.mark.slow),
        (True, 150),
        pytest.param(False, None, marks=pytest.mark.slow),
    ],
)
def test_gathered_keys_equal_the_whole(causal: bool, window: int | None) -> None:
    """The length over two devices in zigzag order, heads over two more."""
    args, mask, how = inputs(), Mask(causal, window), Scores(H, SCALE, 1.5)
    args = [jnp.concatenate([x, x], axis=1) for x in args]
    weights = np.random.default_rng(1).standard_normal((B, 2 * T, N, H), np.float32)
    order = zigzag(2 * T, 2)

    def split(q: Any, k: Any, v: Any) -> Any:
        parts = (x[:, order] for x in (q, k, v, args[3]))
        out = splash.gathered_splash_attention(*parts, mask, how)[:, np.argsort(order)]
        return (out * weights).sum(), out

    def whole(q: Any, k: Any, v: Any) -> Any:
        seen = visible(mask, args[3], slice(0, 2 * T), slice(0, 2 * T))
        out = reference_attention(q, k, v, seen, how)
        return (out * weights).sum(), out

    with jax.set_mesh(make_mesh(ParallelConfig(data=2, context=2, tensor=2))):
        (_, out), grads = jax.jit(jax.value_and_grad(split, (0, 1, 2), has_aux=True))(*args[:3])
    (_, right), wanted = jax.jit(jax.value_and_grad(whole, (0, 1, 2), has_aux=True))(*args[:3])
    assert relative_error(out, right) < 1e-5
    assert relative_error(grads, wanted) < 1e-5


def test_split_sequences_take_the_kernel_on_a_tpu_where_they_can() -> None:
    model = scores(model_config(head_dim=128))
    assert split_choice(model, "gather", 1024, 4, "tpu") == Choice("splash over gathered keys")
    plain = split_choice(model, "gather", 512, 4, "tpu")
    assert "multiple of 128, not 64" in plain.reason
    assert split_choice(model, "ring", 1024, 4, "tpu").kind == "ring (plain, over split sequences)"
    assert split_choice(model, "gather", 1024, 4, "cpu").reason == ""
