"""bfloat16 state: unbiased rounding, learning where plain rounding stalls, every mesh alike."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import (
    MARKS,
    compute_config,
    device_batch,
    model_config,
    optim_config,
    packed_batch,
    parameters,
    relative_error,
    run_config,
    state_on,
)

from llm_jax.config import (
    ConfigError,
    DataConfig,
    MoeConfig,
    OptimConfig,
    ParallelConfig,
)
from llm_jax.data.batches import split_documents
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.precision import random_bits, stochastic_round, stored_like
from llm_jax.train.state import abstract_state
from llm_jax.train.step import compile_train_step, gradients

ALL_BFLOAT16 = {
    "param_dtype": "bfloat16",
    "grad_dtype": "bfloat16",
    "moment_dtype": "bfloat16",
    "second_moment_dtype": "bfloat16",
}


def rounded(x: np.ndarray, seed: int) -> np.ndarray:
    return np.asarray(stochastic_round(jnp.asarray(x), jnp.uint32(seed)), np.float64)


def test_rounding_goes_to_a_neighbour_and_is_right_on_average() -> None:
    """4,000 numbers of 40 powers of ten, 400 roundings: the mean error is that of chance."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(4000) * 10.0 ** rng.integers(-20, 20, 4000)).astype(np.float32)
    down = (x.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)
    up = ((x.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32).astype(np.float64)
    share = (x - down) / (up - down)
    drawn = np.stack([rounded(x, seed) for seed in rng.integers(0, 2**32, 400)])
    assert ((drawn == down) | (drawn == up)).all()
    raised = (drawn == up).mean(axis=0)
    deviation = np.sqrt(share * (1 - share) / 400)
    z = (raised - share) / np.maximum(deviation, 1e-9)
    z = z[deviation > 0.01]
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert 0.9 < z.std() < 1.1


def test_roundings_of_neighbours_and_of_steps_are_independent() -> None:
    a, b = (
        np.asarray(random_bits(jnp.uint32(seed), (64, 4096)) >> 16, np.float64)
        for seed in (7, 8)  # as alike as two can be
    )
    pairs = [(a, b), (a[:, 1:], a[:, :-1]), (a[1:], a[:-1])]
    for first, second in pairs:
        found = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(found) < 4 / np.sqrt(first.size)
    assert abs(a.mean() / 65535 - 0.5) < 4 / np.sqrt(12 * a.size)


def test_what_bfloat16_holds_stays_and_the_rest_of_the_numbers_are_themselves() -> None:
    exact = np.array([0.0, -0.0, 1.0, -2.5, 3e38, np.inf, -np.inf], np.float32)
    exact = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float32)
    for seed in range(20):
        assert (rounded(exact, seed) == exact).all()
        assert np.isnan(rounded(np.array([np.nan], np.float32), seed)).all()


def test_each_step_and_each_leaf_is_rounded_anew() -> None:
    x = jnp.full((1000,), 1 + 2**-8, jnp.float32)
    like = {"a": x.astype(jnp.bfloat16), "b": x.astype(jnp.bfloat16), "c": x}

    def made(seed: int, step: int) -> Any:
        return stored_like({"a": x, "b": x, "c": x}, like, seed, jnp.int32(step))

    first, again, later, other = made(0, 5), made(0, 5), made(0, 6), made(1, 5)
    assert (first["a"] == again["a"]).all() and (first["c"] == x).all()
    for one, two in ((first["a"], first["b"]), (first["a"], later["a"]), (first["a"], other["a"])):
        assert 400 < int((one != two).sum()) < 600


def test_what_is_stored_in_which_dtype() -> None:
    moe = MoeConfig(experts=4, top_k=2, d_ff=16, balance_rate=0.01)
    config = run_config(
        model=model_config(moe=moe, qk_norm=True),
        optim=optim_config(**ALL_BFLOAT16 | {"second_moment_dtype": "float32"}),
    )
    state = abstract_state(config, make_mesh(ParallelConfig(), jax.devices()[:1]))
    float32 = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, leaf in jax.tree_util.tree_leaves_with_path(state["params"])
        if leaf.dtype == jnp.float32
    }
    assert float32 == {
        "final_norm.scale",
        *(f"blocks.{name}.scale" for name in ("attn_norm", "mlp_norm")),
        *(f"blocks.attn.{name}.scale" for name in ("q_norm", "k_norm")),
        "blocks.moe.router",
        "blocks.moe.bias",
    }
    kinds = {
        name: {
            leaf.dtype for leaf in jax.tree.leaves(optax.tree_utils.tree_get(state["opt"], name))
        }
        for name in ("mu", "nu")
    }
    assert kinds == {"mu": {jnp.dtype("bfloat16")}, "nu": {jnp.dtype("float32")}}


@pytest.mark.parametrize(("kind", "names"), [("muon", ("mu", "nu")), ("adafactor", ("ema", "v"))])
def test_moments_of_other_optimizers(kind: Any, names: tuple[str, str]) -> None:
    config = run_config(optim=optim_config(kind=kind, **ALL_BFLOAT16))
    state = abstract_state(config, make_mesh(ParallelConfig(), jax.devices()[:1]))
    for name in names:
        found = optax.tree_utils.tree_get_all_with_path(state["opt"], name)
        leaves = jax.tree.leaves([moment for _, moment in found])
        assert leaves and {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}


def losses_by_heart(steps: int = 200, **optim: Any) -> list[float]:
    """Loss of each step on one batch of two documents, learnt with small steps."""
    config = run_config(
        steps=steps,
        data=DataConfig(seq_len=16, batch_size=2),
        optim=OptimConfig(
            **{"learning_rate": 1e-3, "warmup_steps": 0, "weight_decay": 0.0} | optim
        ),
    )
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    step = compile_train_step(config, mesh, np.full(64, 3, np.int32))
    tokens = np.random.default_rng(0).integers(3, 64, (2, 17), dtype=np.int32)
    batch = device_batch(split_documents(tokens, MARKS), mesh)
    state, found = state_on(config, mesh), []
    for _ in range(steps):
        state, metrics = step(state, batch)
        found.append(metrics["loss"])
    return [float(loss) for loss in found]


@pytest.mark.slow
def test_stochastic_rounding_learns_what_plain_rounding_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of 1e-4 are a tenth of the last digit of weights of 0.2."""
    small = {"learning_rate": 1e-4}
    exact = losses_by_heart(**small)
    stochastic = losses_by_heart(**small, **ALL_BFLOAT16)

    def to_nearest(x, seed):
        return x.astype(jnp.bfloat16)

    monkeypatch.setattr("llm_jax.train.precision.stochastic_round", to_nearest)
    nearest = losses_by_heart(**small, **ALL_BFLOAT16)
    print(exact[0], exact[-1], stochastic[-1], nearest[-1])
    fall = exact[0] - exact[-1]
    assert fall > 0.5
    assert exact[0] - stochastic[-1] == pytest.approx(fall, rel=0.1)
    assert exact[0] - nearest[-1] < 0.6 * fall


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor"])
def test_every_mesh_rounds_alike(kind: Any) -> None:
    """The noise depends on the element's place in the whole array, so two meshes differ by the
    order of their sums alone; that flips a rounding now and then."""
    config = run_config(
        compute=compute_config(dtype="bfloat16", accumulate=2),
        data=DataConfig(seq_len=16, batch_size=8),
        optim=optim_config(kind=kind, **ALL_BFLOAT16),
    )
    found = []
    for parallel, devices in ((ParallelConfig(), 1), (ParallelConfig(data=2, fsdp=2, tensor=2), 8)):
        mesh = make_mesh(parallel, jax.devices()[:devices])
        step = compile_train_step(config, mesh, np.full(64, 3, np.int32))
        state, batch, losses = state_on(config, mesh), device_batch(packed_batch(8, 16), mesh), []
        before = jax.tree.map(lambda leaf: (leaf.dtype, leaf.sharding), state)
        for _ in range(5):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        assert jax.tree.map(lambda leaf: (leaf.dtype, leaf.sharding), state) == before
        found.append(losses)
    assert found[1] == pytest.approx(found[0], rel=5e-3)
    assert found[0][4] < found[0][0] - 0.1


@pytest.mark.slow
def test_gradients_of_micro_batches_are_summed_in_the_chosen_dtype() -> None:
    """bfloat16 gradients are those of float32 but for their last digits."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = run_config(
            compute=compute_config(dtype="bfloat16", accumulate=2),
            data=DataConfig(seq_len=16, batch_size=8),
            optim=optim_config(grad_dtype=dtype),
        )
        params = jax.tree.map(jnp.asarray, parameters(config.model))
        batch = jax.tree.map(jnp.asarray, packed_batch(8, 16))
        found[dtype] = jax.jit(lambda p, b, c=config: gradients(p, b, c)[0])(params, batch)
    kinds = jax.tree.map(lambda leaf: leaf.dtype, found["bfloat16"])
    assert (
        kinds["blocks"]["mlp"]["up"] == kinds["embed"]["tokens"] == kinds["unembed"] == "bfloat16"
    )
    assert kinds["blocks"]["mlp_norm"]["scale"] == kinds["final_norm"]["scale"] == "float32"
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), found["bfloat16"])
    assert 1e-4 < relative_error(wide, found["float32"]) < 2e-2


def test_narrow_gradients_of_a_float32_step_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.grad_dtype is 'bfloat16', but compute"):
        run_config(optim=optim_config(grad_dtype="bfloat16"))
    assert run_config(optim=optim_config(**ALL_BFLOAT16)).optim.grad_dtype == "bfloat16"
