"""Cross-entropy in chunks is optax's, and the logits of the whole batch never exist."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import compute_config, model_config, optim_config, relative_error, run_config

from llm_jax.config import DataConfig, ParallelConfig
from llm_jax.models.common.layers import project
from llm_jax.objectives.cross_entropy import chunk_length, cross_entropy
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.step import compile_eval_step, compile_train_step

B, T, D, V = 3, 20, 16, 50


def full_logits_loss(x: Any, w: Any, targets: Any, weight: Any, cap: Any, z_loss: float) -> Any:
    out = project(x, w, cap)
    counted = targets >= 0
    nll = optax.softmax_cross_entropy_with_integer_labels(out, jnp.maximum(targets, 0))
    penalty = z_loss * jax.nn.logsumexp(out, axis=-1) ** 2
    return weight * jnp.sum(jnp.where(counted, nll + penalty, 0.0))


@pytest.mark.parametrize(
    ("softcap", "z_loss", "chunk"),
    [(None, 0.0, 3 * 5), (None, 0.05, 3), (2.0, 0.0, 3 * 10), (2.0, 0.05, 3 * 5), (2.0, 0.05, 999)],
)
def test_equals_optax(softcap: float | None, z_loss: float, chunk: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, T, D), np.float32)
    w = 0.5 * rng.standard_normal((D, V), np.float32)
    targets = rng.integers(0, V, (B, T), dtype=np.int32)
    targets[rng.random((B, T)) < 0.2] = -1
    weight = np.float32(1 / (targets >= 0).sum())

    def ours(x: Any, w: Any) -> Any:
        return cross_entropy(x, w, targets, weight, softcap, chunk, z_loss)

    def wanted(x: Any, w: Any) -> Any:
        return full_logits_loss(x, w, targets, weight, softcap, z_loss)

    (loss, plain), grads = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(x, w)
    loss_w, grads_w = jax.jit(jax.value_and_grad(wanted, (0, 1)))(x, w)
    assert float(loss) == pytest.approx(float(loss_w), rel=1e-6)
    assert relative_error(grads, grads_w) < 2e-6
    assert not np.asarray(grads[0])[targets < 0].any()
    forward_only = jax.jit(ours)(x, w)
    assert float(forward_only[0]) == pytest.approx(float(loss), rel=1e-6)
    without_z = full_logits_loss(x, w, targets, weight, softcap, 0.0)
    assert float(plain) == pytest.approx(float(without_z), rel=1e-6)
    assert (float(loss) > float(plain) + 1e-3) == (z_loss > 0)


@pytest.mark.parametrize("shards", [1, 8])
def test_smoothed_labels_are_those_of_torch(shards: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 6, D), np.float32)
    w = 0.5 * rng.standard_normal((D, 48), np.float32)
    targets = rng.integers(0, 48, (8, 6), dtype=np.int32)
    targets[rng.random((8, 6)) < 0.2] = -1
    weight = np.float32(1 / (targets >= 0).sum())
    theirs = [torch.tensor(array, requires_grad=True) for array in (x, w)]
    labels = torch.tensor(targets.reshape(-1).astype(np.int64))
    logits = (theirs[0] @ theirs[1]).reshape(-1, 48)
    loss_w, plain_w = (
        torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=s)
        for s in (0.1, 0.0)
    )
    loss_w.backward()
    parallel = ParallelConfig(fsdp=4, tensor=2) if shards == 8 else ParallelConfig()
    with jax.set_mesh(make_mesh(parallel, jax.devices()[:shards])):
        (loss, plain), grads = jax.jit(
            jax.value_and_grad(
                lambda x, w: cross_entropy(x, w, targets, weight, None, 24, 0.0, None, 0.1),
                (0, 1),
                has_aux=True,
            )
        )(x, w)
    assert float(loss) == pytest.approx(loss_w.item(), rel=1e-5)
    assert float(plain) == pytest.approx(plain_w.item(), rel=1e-5)
    assert relative_error(grads, tuple(one.grad.numpy() for one in theirs)) < 1e-5


def test_gradient_follows_what_the_loss_is_multiplied_with() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, D), np.float32)
    w = rng.standard_normal((D, V), np.float32)
    targets = np.array([[1, -1, 3, 4]], np.int32)

    def scaled(factor: float, x: Any) -> Any:
        return factor * cross_entropy(x, w, targets, np.float32(1), None, 2, 0.0)[0]

    once, thrice = (jax.grad(functools.partial(scaled, f))(x) for f in (1.0, 3.0))
    assert relative_error(thrice, 3 * np.asarray(once)) < 1e-6


def test_all_targets_ignored_is_zero() -> None:
    x, w = np.ones((1, 4, D), np.float32), np.ones((D, V), np.float32)
    targets = np.full((1, 4), -1, np.int32)
    (loss, _), grads = jax.value_and_grad(
        lambda x: cross_entropy(x, w, targets, np.float32(1), None, 2, 0.1), has_aux=True
    )(x)
    assert float(loss) == 0.0
    assert not np.asarray(grads).any()


@pytest.mark.parametrize(
    ("batch", "length", "tokens", "chunk"),
    [(8, 1024, 512, 64), (8, 1024, 8192, 1024), (8, 1024, 4, 1), (3, 20, 15, 5), (2, 7, 6, 1)],
)
def test_chunk_length(batch: int, length: int, tokens: int, chunk: int) -> None:
    assert chunk_length(batch, length, tokens) == chunk


def test_float32_logits_of_the_batch_never_exist() -> None:
    B, T, D, V = 4, 256, 32, 8192
    whole = B * T * V * 4
    arrays = (
        jax.ShapeDtypeStruct((B, T, D), jnp.float32),
        jax.ShapeDtypeStruct((D, V), jnp.float32),
        jax.ShapeDtypeStruct((B, T), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.float32),
    )

    def temporary(loss: Any) -> int:
        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    chunked = temporary(lambda x, w, t, n: cross_entropy(x, w, t, n, None, 64, 1e-4)[0])
    assert chunked < whole / 4
    assert temporary(lambda *args: full_logits_loss(*args, None, 1e-4)) > whole


@pytest.mark.slow
def test_the_whole_step_has_no_logits_either() -> None:
    T, V = 256, 32_768
    config = run_config(
        model=model_config(vocab_size=V, max_seq_len=T, tie_embeddings=True),
        compute=compute_config(loss_chunk=64, remat="full"),
        data=DataConfig(seq_len=T, batch_size=8),
        optim=optim_config(z_loss=1e-4),
    )
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    for compile_step in (compile_train_step, compile_eval_step):
        compiled: Any = compile_step(config, mesh, np.ones(V, np.int32))
        assert compiled.memory_analysis().temp_size_in_bytes < 8 * T * V * 4 / 4
