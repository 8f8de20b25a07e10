"""What the guard does not take leaves the state as it was, and a resumed run decides the same."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import device_batch, packed_batch, run_config, state_on

from llm_jax.config import ConfigError, OptimConfig
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train import step as step_module
from llm_jax.train.guard import WINDOW, fresh_guard, judge, spike_bound

POISON = 40
"""A batch whose first token is this one has a loss that is not a number."""


def poisoned(monkeypatch: pytest.MonkeyPatch, value: float = float("nan")) -> None:
    """Multiplies the loss of batches that begin with POISON by `value`."""
    loss_fn = step_module.loss_fn

    def loss(params: Any, batch: Any, weight: jax.Array, config: Any) -> Any:
        hit = batch["inputs"][0, 0] == POISON
        return loss_fn(params, batch, weight * jnp.where(hit, value, 1.0), config)

    monkeypatch.setattr(step_module, "loss_fn", loss)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_step_changes_nothing_but_the_counts(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss itself stays finite: it is the gradient that is not."""
    poisoned(monkeypatch, value)
    config = run_config()
    mesh = make_mesh(config.parallel)
    step: Any = step_module.compile_train_step(config, mesh, np.ones(64, np.int32))
    good, bad = packed_batch(8, 16), packed_batch(8, 16)
    bad["inputs"][0, 0] = POISON
    good["inputs"][0, 0] = POISON + 1
    state, metrics = step(state_on(config, mesh), device_batch(good, mesh))
    assert (int(metrics["skipped"]), int(metrics["streak"])) == (0, 0)
    before = jax.device_get(state)
    state, metrics = step(state, device_batch(bad, mesh))
    after = jax.device_get(state)
    assert not np.isfinite(metrics["grad_norm"])
    assert (int(metrics["skipped"]), int(metrics["streak"])) == (1, 1)
    for name in ("params", "opt"):
        jax.tree.map(np.testing.assert_array_equal, after[name], before[name])
    assert (before["step"], after["step"]) == (1, 2)
    state, metrics = step(state, device_batch(good, mesh))
    assert (int(metrics["skipped"]), int(metrics["streak"])) == (1, 0)
    # The second update made is the schedule's second, though it is the third step.
    assert float(metrics["learning_rate"]) == pytest.approx(3e-3 * 2 / 3)
    moved = jax.device_get(state["params"]["embed"]["tokens"])
    assert np.any(moved != before["params"]["embed"]["tokens"])


def filled(losses: np.ndarray) -> Any:
    guard = fresh_guard()
    for loss in losses:
        _, guard = jax.jit(judge, static_argnums=3)(guard, jnp.float32(loss), jnp.float32(1), None)
    return guard


def test_a_spike_is_measured_by_median_and_deviation() -> None:
    losses = np.random.default_rng(0).normal(3.0, 0.1, WINDOW).astype(np.float32)
    losses[:20] = 9.0  # outliers: they move the mean by 0.9, and the bound hardly
    median = np.median(losses)
    bound = median + 10 * 1.4826 * np.median(np.abs(losses - median))
    assert float(spike_bound(jnp.asarray(losses), 10.0)) == pytest.approx(bound, rel=1e-5)
    assert 4.0 < bound < 4.6
    guard = filled(losses)
    np.testing.assert_array_equal(guard["losses"], losses)
    for loss, taken in ((bound - 0.01, True), (bound + 0.01, False)):
        take, after = judge(guard, jnp.float32(loss), jnp.float32(1), 10.0)
        assert bool(take) == taken
        assert int(after["streak"]) == int(not taken)
        # A skipped loss does not enter the window; a taken one replaces the oldest.
        assert float(after["losses"][0]) == pytest.approx(loss if taken else 9.0)
    assert bool(judge(guard, jnp.float32(1e30), jnp.float32(1), None)[0])


def test_no_spike_before_the_window_is_full_nor_among_equal_losses() -> None:
    guard = filled(np.full(WINDOW - 1, 2.0))
    assert bool(judge(guard, jnp.float32(100.0), jnp.float32(1), 10.0)[0])
    guard = filled(np.full(WINDOW, 2.0))
    assert bool(judge(guard, jnp.float32(2.19), jnp.float32(1), 10.0)[0])
    assert not bool(judge(guard, jnp.float32(2.21), jnp.float32(1), 10.0)[0])
    with pytest.raises(ConfigError, match=r"optim.spike_limit is 0: it must be above 0."):
        OptimConfig(spike_limit=0)
