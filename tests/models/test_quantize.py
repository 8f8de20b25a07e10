"""Matmuls in 8 bits: how far off they are, that they learn, that the TPU multiplies int8."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    MARKS,
    compute_config,
    device_batch,
    model_config,
    run_config,
    state_on,
)

from llm_jax.config import (
    ComputeConfig,
    DataConfig,
    LatentConfig,
    OptimConfig,
    ParallelConfig,
    UserError,
)
from llm_jax.data.batches import split_documents
from llm_jax.models.common.layers import dense
from llm_jax.models.common.quantize import matmul_of, require_library
from llm_jax.parallel.mesh import make_mesh, sharding
from llm_jax.preflight.topology import devices, find
from llm_jax.train.step import compile_train_step

quantizes = pytest.mark.skipif(
    importlib.util.find_spec("qwix") is None, reason="needs qwix: pip install 'llm-jax[quantize]'"
)
compiles = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install libtpu"
)


@quantizes
@pytest.mark.parametrize(("kind", "step"), [("int8", 1 / 254), ("fp8", 1 / 16)])
def test_the_error_is_that_of_rounding_to_eight_bits(kind: str, step: float) -> None:
    """Each operand is off by half a step at most: int8 of its row's largest value, e4m3 (three bits
    of mantissa) of itself; the product by no more than the sum of what these add to each term."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 5, 256), np.float32) * 10.0 ** rng.integers(-3, 3, (3, 5, 1))
    w = rng.standard_normal((256, 64), np.float32) * 10.0 ** rng.integers(-3, 3, (1, 64))
    x, w = x.astype(np.float32), w.astype(np.float32)
    found = np.asarray(matmul_of(kind)(jnp.asarray(x), jnp.asarray(w)))
    exact = x.astype(np.float64) @ w.astype(np.float64)
    if kind == "int8":
        dx = step * np.abs(x).max(axis=-1, keepdims=True) * np.ones_like(x)
        dw = step * np.abs(w).max(axis=0, keepdims=True) * np.ones_like(w)
    else:  # below its smallest normal number, 2^-6 of 448, the step is that of 2^-6
        dx = step * np.maximum(np.abs(x), np.abs(x).max(axis=-1, keepdims=True) / 448 / 64)
        dw = step * np.maximum(np.abs(w), np.abs(w).max(axis=0, keepdims=True) / 448 / 64)
    bound = dx @ np.abs(w) + np.abs(x) @ dw + dx @ dw
    assert (np.abs(found - exact) <= 1.001 * bound).all()
    assert 1e-4 < np.linalg.norm(found / bound - exact / bound) < 0.2 * np.sqrt(exact.size)


@quantizes
def test_gradients_go_straight_through() -> None:
    rng = np.random.default_rng(0)
    x, w, dy = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((4, 8), (8, 3), (4, 3)))
    _, back = jax.vjp(lambda x, w: matmul_of("int8")(x, w), x, w)
    _, plain = jax.vjp(lambda x, w: dense(x, w), x, w)
    for one, two in zip(back(dy), plain(dy), strict=True):
        assert (one == two).all()


@pytest.mark.slow
@quantizes
@pytest.mark.parametrize("kind", ["int8", pytest.param("fp8", marks=pytest.mark.slow)])
def test_one_batch_is_learnt_by_heart(kind: Any) -> None:
    config = run_config(
        steps=150,
        data=DataConfig(seq_len=16, batch_size=2),
        compute=compute_config(quantize=kind),
        optim=OptimConfig(learning_rate=1e-2, warmup_steps=10, weight_decay=0.0),
    )
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    step = compile_train_step(config, mesh, np.full(64, 3, np.int32))
    tokens = np.random.default_rng(0).integers(3, 64, (2, 17), dtype=np.int32)
    batch, state, found = (
        device_batch(split_documents(tokens, MARKS), mesh),
        state_on(config, mesh),
        [],
    )
    for _ in range(150):
        state, metrics = step(state, batch)
        found.append(metrics["loss"])
    assert float(found[0]) > 3
    assert float(found[-1]) < 0.1


@quantizes
def test_scales_are_those_of_the_whole_rows_and_columns_on_every_mesh() -> None:
    """With the contracted axis split over `tensor`, as in the last matmul of the MLP, one device's
    part of a row has another largest value than the row, and would agree in nothing. A number that
    lies between two of int8 may go the other way, which moves a whole row or column by a step."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((8, 16, 64), (64, 32)))
    product = jax.jit(lambda x, w: matmul_of("int8")(x, w))
    wanted = np.asarray(product(x, w))
    mesh = make_mesh(ParallelConfig(data=2, fsdp=1, tensor=4))
    parts = (("batch", "length", "mlp"), ("mlp", "embed"))
    x, w = (jax.device_put(a, sharding(mesh, p)) for a, p in zip((x, w), parts, strict=True))
    with jax.set_mesh(mesh):
        found = np.asarray(product(x, w))
    off = np.abs(found - wanted) / np.abs(wanted).max()
    assert off.max() < 1e-2
    assert (off < 1e-6).mean() > 0.7


@quantizes
@compiles
@pytest.mark.slow
@pytest.mark.parametrize("slice_", ["v5e-4", "v6e-4"])
def test_the_tpu_multiplies_int8(slice_: str) -> None:
    """Every weight matmul of the block: q, k, v, o, gate, up and down, once forward and again where
    the backward pass recomputes it, all but the last of them."""
    model = model_config(
        vocab_size=1024, d_model=256, num_heads=2, num_kv_heads=2, head_dim=128, d_ff=512
    )
    config = run_config(
        model=replace(model, max_seq_len=256),
        compute=ComputeConfig(quantize="int8", attention="reference"),
        data=DataConfig(seq_len=128, batch_size=8),
        parallel=ParallelConfig(data=1, fsdp=4),
    )
    mesh = make_mesh(config.parallel, devices(find(slice_)))
    step: Any = compile_train_step(config, mesh, np.ones(1024, np.int32))
    assert products_of_int8(step.as_text()) == 13


def products_of_int8(text: str) -> int:
    """Convolutions (a TPU's matmuls) whose two operands are s8."""
    types = dict(re.findall(r"%([\w.-]+) = (\w+)\[", text))
    products = re.findall(r" convolution\(%([\w.-]+), %([\w.-]+)\)", text)
    return sum(types.get(a) == types.get(b) == "s8" for a, b in products)


def test_without_the_library_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"'int8' needs qwix, which .* 'llm-jax\[quantize\]', or set"
    ):
        require_library(compute_config(quantize="int8"))
    require_library(compute_config())


NEW_LAYERS: dict[str, dict[str, Any]] = {
    "latent": {
        "latent": LatentConfig(kv_rank=16, q_rank=24, rope_dim=4, value_dim=8),
        "num_kv_heads": 8,
    },
    "sinks": {"attn_sinks": True},
    "parallel": {"parallel_block": "one_norm"},
}


@pytest.mark.slow
@quantizes
@pytest.mark.parametrize("name", NEW_LAYERS)
def test_layers_of_other_families_learn_with_matmuls_in_eight_bits(name: str) -> None:
    """The loss in int8 is near that of plain matmuls before a step, and falls as far in twenty."""
    model, mesh = model_config(**NEW_LAYERS[name]), make_mesh(ParallelConfig(), jax.devices()[:1])
    tokens = np.random.default_rng(0).integers(3, 64, (2, 17), dtype=np.int32)
    losses = {}
    for kind in ("none", "int8"):
        config = run_config(
            steps=20,
            model=model,
            data=DataConfig(seq_len=16, batch_size=2),
            compute=compute_config(quantize=kind),
            optim=OptimConfig(learning_rate=1e-2, warmup_steps=2, weight_decay=0.0),
        )
        step = compile_train_step(config, mesh, np.full(64, 3, np.int32))
        batch = device_batch(split_documents(tokens, MARKS), mesh)
        state, found = state_on(config, mesh), []
        for _ in range(20):
            state, metrics = step(state, batch)
            found.append(float(metrics["loss"]))
        losses[kind] = np.array(found)
    plain, rounded = losses["none"], losses["int8"]
    assert 0 < abs(rounded[0] - plain[0]) < 0.02 * plain[0]
    assert plain[-1] < 0.7 * plain[0]
    assert rounded[-1] < 0.7 * rounded[0]
