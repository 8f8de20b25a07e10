"""The schedules by their numbers, what decays by name, clipping, accumulation, and learning."""

from __future__ import annotations

import itertools
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
    ModelConfig,
    MoeConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
)
from llm_jax.data.batches import split_documents
from llm_jax.models.common.parameter import Spec
from llm_jax.models.decoder.transformer import DECODER
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.optimizers.common import decay_mask
from llm_jax.train.optimizers.make import gradient_norm, make_optimizer
from llm_jax.train.optimizers.muon import muon_axes
from llm_jax.train.optimizers.schedule import learning_rate
from llm_jax.train.optimizers.schedule_free import schedule_free_average
from llm_jax.train.precision import as_matrices
from llm_jax.train.step import compile_train_step


def rates(steps: int, **changes: Any) -> list[float]:
    schedule = learning_rate(OptimConfig(**({"learning_rate": 1.0} | changes)), steps)
    return [float(schedule(step)) for step in range(steps)]


def test_cosine_by_numbers() -> None:
    found = rates(104, warmup_steps=4, final_fraction=0.1)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[54] == pytest.approx(0.55)
    assert found[29] == pytest.approx(0.1 + 0.9 * (1 + np.cos(np.pi / 4)) / 2)
    assert found[103] == pytest.approx(0.1, abs=3e-4)
    assert all(a > b for a, b in itertools.pairwise(found[4:]))


def test_warmup_stable_decay_by_numbers() -> None:
    found = rates(100, schedule="wsd", warmup_steps=9, decay_fraction=0.2, final_fraction=0.0)
    assert found[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert found[9:81] == pytest.approx([1.0] * 72)
    assert found[81:] == pytest.approx([1 - i / 20 for i in range(1, 20)])


def test_constant_after_the_warmup() -> None:
    found = rates(6, schedule="constant", warmup_steps=3)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_inverse_square_root_by_numbers() -> None:
    """The formula of Vaswani et al. 2017 for 4 warm-up steps, up to its factor: their step is 1
    at our update 0."""
    found = rates(40, schedule="inverse_sqrt", warmup_steps=3)
    wanted = [2 * min(step**-0.5, step * 4**-1.5) for step in range(1, 41)]
    assert found == pytest.approx(wanted)


def test_schedules_without_warmup_and_without_stable_part() -> None:
    assert rates(10, warmup_steps=0)[0] == pytest.approx(1.0)
    found = rates(10, schedule="wsd", warmup_steps=5, decay_fraction=1.0, final_fraction=0.5)
    assert found[5] == pytest.approx(1.0)
    assert found[9] == pytest.approx(1 - 0.5 * 4 / 10)
    assert rates(1, warmup_steps=0) == pytest.approx([1.0])


GPT2 = {"norm": "layernorm", "positions": "learned", "activation": "gelu"}
BIASES = {"biases": ("qkv", "out", "mlp")}


def test_matrices_decay_and_nothing_else() -> None:
    model = model_config(**GPT2, **BIASES, qk_norm=True)
    mask = decay_mask(DECODER.specs(model))
    decaying = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, decays in jax.tree_util.tree_leaves_with_path(mask)
        if decays
    }
    assert decaying == {
        "embed.tokens",
        "unembed",
        *(f"blocks.attn.{name}" for name in "qkvo"),
        "blocks.mlp.up",
        "blocks.mlp.down",
    }


def treatment(model: ModelConfig) -> dict[str, str]:
    """Parameter → its role, and what the optimizer, the storage and the gradient's norm make of
    it."""
    specs = DECODER.specs(model)
    decays = jax.tree.leaves(decay_mask(specs))
    ones = jax.tree.map(lambda spec: np.ones((), np.float32), specs)
    stored = [str(leaf.dtype) for leaf in jax.tree.leaves(as_matrices(ones, "bfloat16", specs))]
    found = {}
    leaves = jax.tree_util.tree_leaves_with_path(specs)
    for (path, spec), decay, dtype in zip(leaves, decays, stored, strict=True):
        alone = {"x": spec}
        counted = float(gradient_norm({"x": np.ones((), np.float32)}, alone)) == 1
        words = [spec.role, dtype] + ["decay"] * decay + ["muon"] * (muon_axes(spec) is not None)
        words += ["norm"] * counted
        found[jax.tree_util.keystr(path, simple=True, separator=".")] = " ".join(words)
    return found


def test_the_role_decides_how_a_parameter_is_treated() -> None:
    matrix, table = "matrix bfloat16 decay muon norm", "table bfloat16 decay norm"
    vector = "vector float32 norm"
    dense = {
        "embed.tokens": table,
        "unembed": table,
        "final_norm.scale": vector,
        "blocks.attn_norm.scale": vector,
        "blocks.mlp_norm.scale": vector,
        **{f"blocks.attn.{name}": matrix for name in "qkvo"},
        **{f"blocks.mlp.{name}": matrix for name in ("up", "gate", "down")},
    }
    assert treatment(model_config()) == dense
    assert treatment(model_config(tie_embeddings=True)) == {
        name: how for name, how in dense.items() if name != "unembed"
    }
    learned = treatment(model_config(**GPT2, **BIASES))
    assert learned["embed.positions"] == "positions bfloat16 norm"
    assert {how for name, how in learned.items() if "bias" in name} == {vector}
    moe = MoeConfig(experts=2, top_k=1, d_ff=8, shared_d_ff=8, router="sigmoid", balance_rate=0.1)
    experts = treatment(model_config(moe=moe))
    assert experts["blocks.moe.router"] == "router float32 decay norm"
    assert experts["blocks.moe.bias"] == "balance float32"
    inner = ("up", "gate", "down", "shared.up", "shared.gate", "shared.down")
    assert {experts[f"blocks.moe.{name}"] for name in inner} == {matrix}


@pytest.mark.slow
def test_update_is_adamw_after_clipping() -> None:
    """One update against Loshchilov & Hutter's algorithm 2, written out."""
    model = model_config(num_layers=1)
    optim = OptimConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=0.7)
    params = parameters(model)
    grads = parameters(model, seed=1)
    tx = make_optimizer(optim, 10, DECODER.specs(model))
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
    rate = rates(10, warmup_steps=0)[1] * 0.1
    norm = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in jax.tree.leaves(grads)))
    assert norm > 0.7
    mask = decay_mask(DECODER.specs(model))

    def wanted(grad: np.ndarray, param: np.ndarray, decays: bool) -> np.ndarray:
        clipped = grad * 0.7 / norm  # twice the same gradient: bias-corrected moments are g and g²
        direction = clipped / (np.abs(clipped) + optim.eps)
        return -rate * (direction + 0.5 * param * decays)

    assert relative_error(updates, jax.tree.map(wanted, grads, params, mask)) < 1e-3
    moments = optax.tree_utils.tree_get(state, "nu")
    assert {leaf.dtype for leaf in jax.tree.leaves(moments)} == {np.dtype("float32")}


SMALL_TREE = {
    "matrix": Spec(("layers", "embed", "mlp"), "matrix"),
    "scale": Spec(("layers", "norm"), "vector"),
}


def first_update(kind: Any, shape: tuple[int, ...], **changes: Any) -> tuple[Any, Any, Any]:
    """Update, gradient and state of the first step on a matrix per layer and a vector."""
    optim = OptimConfig(kind=kind, learning_rate=1.0, warmup_steps=0, weight_decay=0.0, **changes)
    rng = np.random.default_rng(0)
    grads = {
        "matrix": rng.standard_normal(shape, np.float32),
        "scale": rng.standard_normal((shape[0], 4), np.float32),
    }
    tx = make_optimizer(optim, 10, SMALL_TREE)
    updates, state = jax.jit(tx.update)(grads, tx.init(grads), grads)
    return updates, grads, state


def test_muon_moves_along_orthogonal_matrices_and_vectors_by_adam() -> None:
    """Newton-Schulz leaves singular values near 1 (Jordan et al. 2024); Liu et al. scale them."""
    updates, grads, _ = first_update("muon", (2, 16, 32))
    for update, grad in zip(updates["matrix"], grads["matrix"], strict=True):
        left, _, right = np.linalg.svd(grad, full_matrices=False)
        aligned = left.T @ np.asarray(-update / (0.2 * np.sqrt(32))) @ right.T
        values = np.diag(aligned)
        assert values.min() > 0.6 and values.max() < 1.3
        assert np.abs(aligned - np.diag(values)).max() < 1e-4
    assert np.allclose(updates["scale"], -np.sign(grads["scale"]), atol=1e-5)


def test_muon_takes_heads_together_and_experts_apart() -> None:
    specs = DECODER.specs(model_config(moe=MoeConfig(experts=2, top_k=1, d_ff=8)))
    attn, moe = specs["blocks"]["attn"], specs["blocks"]["moe"]
    assert muon_axes(attn["q"]) == ((1,), (2, 3))
    assert muon_axes(attn["o"]) == ((1, 2), (3,))
    assert muon_axes(moe["up"]) == ((2,), (3,))
    assert muon_axes(moe["down"]) == ((2,), (3,))
    others = (moe["router"], specs["embed"]["tokens"], specs["unembed"])
    assert [muon_axes(one) for one in others] == [None] * 3


def test_adafactor_divides_by_rows_and_columns() -> None:
    """Shazeer & Stern 2018, algorithm 4: the first step, where the second moments are g²."""
    updates, grads, state = first_update("adafactor", (2, 128, 130), clip_norm=1e9)
    square = grads["matrix"].astype(np.float64) ** 2
    rows, columns = square.mean(axis=2, keepdims=True), square.mean(axis=1, keepdims=True)
    wanted = grads["matrix"] / np.sqrt(rows * columns / rows.mean(axis=1, keepdims=True))
    wanted /= max(1.0, np.sqrt((wanted**2).mean()))
    assert relative_error(updates["matrix"], -wanted) < 1e-4
    moments = optax.tree_utils.tree_get(state, "v_row"), optax.tree_utils.tree_get(state, "v_col")
    assert [moment["matrix"].shape for moment in moments] == [(2, 128), (2, 130)]


@pytest.mark.slow
def test_schedule_free_by_its_equations() -> None:
    """Defazio et al. 2024, eq. 8-10 with algorithm 1's weights, written out for three steps."""
    rate, b1, b2 = 0.1, 0.9, 0.95
    optim = OptimConfig(
        kind="schedule_free", schedule="constant", learning_rate=rate, warmup_steps=1, b1=b1, b2=b2,
        weight_decay=0.5, clip_norm=1e9,
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def draw() -> dict[str, np.ndarray]:
        return {
            "matrix": rng.standard_normal((2, 8, 4), np.float32),
            "scale": rng.standard_normal((2, 4), np.float32),
        }

    y = draw()
    tx = make_optimizer(optim, 10, SMALL_TREE)
    state, params = tx.init(y), jax.tree.map(jnp.asarray, y)
    z, x = dict(y), dict(y)
    second = {name: np.zeros_like(leaf) for name, leaf in y.items()}
    total = 0.0
    for step in range(3):
        grads = draw()
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        gamma = rate / 2 if step == 0 else rate
        total += gamma**2
        for name, grad in grads.items():
            second[name] = b2 * second[name] + (1 - b2) * grad**2
            found = grad / (np.sqrt(second[name] / (1 - b2 ** (step + 1))) + optim.eps)
            found += 0.5 * y[name] * (name == "matrix")
            z[name] = z[name] - gamma * found
            x[name] = x[name] + gamma**2 / total * (z[name] - x[name])
            y[name] = (1 - b1) * z[name] + b1 * x[name]
    assert relative_error(params, y) < 1e-5
    average = schedule_free_average(params, state[1].b1, state[1].z)
    assert relative_error(average, x) < 1e-5
    assert relative_error(params, x) > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "cosine"}, "optim.schedule is 'cosine' while .* 'constant'"),
        ({"b1": 0.0}, "optim.b1 is 0.0 while .* above 0"),
        ({"param_dtype": "bfloat16"}, "optim.param_dtype is 'bfloat16' while .* 'float32'"),
        ({"moment_dtype": "bfloat16"}, "optim.moment_dtype is 'bfloat16' while .* 'float32'"),
    ],
)
def test_what_schedule_free_does_not_go_with(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OptimConfig(**({"kind": "schedule_free", "schedule": "constant"} | changes))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["muon", "adafactor", "schedule_free"])
def test_other_optimizers_learn_on_a_mesh(kind: Any) -> None:
    schedule = "constant" if kind == "schedule_free" else "cosine"
    optim = optim_config(kind=kind, schedule=schedule, learning_rate=3e-3)
    data = DataConfig(seq_len=16, batch_size=8)
    moe = MoeConfig(experts=4, top_k=2, d_ff=16, balance_rate=0.01)
    config = run_config(optim=optim, data=data, model=model_config(moe=moe))
    alone = steps(config, 5)
    split = steps(config, 5, mesh=make_mesh(ParallelConfig(data=1, fsdp=2, expert=2, tensor=2)))
    assert split[4]["loss"] == pytest.approx(alone[4]["loss"], rel=1e-3)
    assert alone[4]["loss"] < alone[0]["loss"] - 0.1


def mesh_of_one() -> Any:
    return make_mesh(ParallelConfig(), jax.devices()[:1])


def steps(
    config: RunConfig, count: int, host: Any = None, mesh: Any = None
) -> list[dict[str, float]]:
    """Metrics of `count` steps on one batch, of several documents a row by default."""
    mesh = mesh or mesh_of_one()
    step = compile_train_step(config, mesh, np.full(config.model.vocab_size, 3, np.int32))
    state = state_on(config, mesh)
    host = host or packed_batch(config.data.batch_size, config.data.seq_len)
    batch = device_batch(host, mesh)
    found = []
    for _ in range(count):
        state, metrics = step(state, batch)
        found.append({name: float(value) for name, value in metrics.items()})
    return found


@pytest.mark.slow
def test_accumulation_changes_nothing() -> None:
    """The rows have different numbers of targets, so a mean of means would differ."""
    data = DataConfig(seq_len=16, batch_size=8)
    whole, parts = (
        steps(run_config(data=data, compute=compute_config(accumulate=n)), 5) for n in (1, 4)
    )
    for a, b in zip(whole, parts, strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    assert whole[4]["loss"] < whole[0]["loss"] - 0.1


def test_metrics_by_their_definitions() -> None:
    config = run_config(data=DataConfig(seq_len=16, batch_size=8))
    targets = packed_batch(8, 16)["targets"]
    first = steps(config, 1)[0]
    assert first["count"] == (targets >= 0).sum() < targets.size
    assert first["bits_per_byte"] == pytest.approx(first["loss"] / np.log(2) / 3, rel=1e-6)
    assert first["learning_rate"] == pytest.approx(1e-3)
    assert first["grad_norm"] > 0.1


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart() -> None:
    config = run_config(
        steps=300,
        data=DataConfig(seq_len=16, batch_size=2),
        optim=OptimConfig(learning_rate=1e-2, warmup_steps=10, weight_decay=0.0),
    )
    # Documents that begin alike could not be learnt by heart: here each row is a part of one.
    tokens = np.random.default_rng(0).integers(3, 64, (2, 17), dtype=np.int32)
    found = steps(config, 300, split_documents(tokens, MARKS))
    assert found[0]["loss"] > 3
    assert found[-1]["loss"] < 0.01
