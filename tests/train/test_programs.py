"""Which programs a start compiles, how often a layer is traced, and that nothing depends on it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny import VOCAB, compute_config, model_config, run_config

from llm_jax.config import CheckpointConfig, EvalConfig
from llm_jax.models.decoder.block import Block
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train import loop, programs, validation
from llm_jax.train.programs import compile_programs
from llm_jax.train.state import init_state
from llm_jax.train.step import lower_train_step


@pytest.mark.parametrize(("layers", "pattern", "kinds"), [(6, None, 1), (5, "LG", 2)])
def test_a_written_out_layer_is_traced_once_for_each_kind(
    layers: int, pattern: str | None, kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[int] = []
    call = Block.__call__

    def counted(self: Block, *args: Any) -> Any:
        traced.append(1)
        return call(self, *args)

    monkeypatch.setattr(Block, "__call__", counted)
    window = {"sliding_window": 4, "window_pattern": pattern} if pattern else {}
    config = run_config(
        model=model_config(num_layers=layers, **window), compute=compute_config(scan_layers=False)
    )
    lower_train_step(config, make_mesh(config.parallel, jax.devices()[:1]), np.ones(64, np.int32))
    assert len(traced) == kinds


@pytest.mark.slow
def test_programs_come_from_threads_and_make_the_same_state() -> None:
    config = run_config(model=model_config(num_layers=1))
    mesh = make_mesh(config.parallel, jax.devices()[:1])
    where: list[bool] = []
    made = compile_programs(
        [config],
        mesh,
        np.ones(64, np.int32),
        random_start=True,
        also=[lambda: where.append(threading.current_thread() is threading.main_thread())],
    )
    assert where == [False] and list(made.steps) == [config.data.batch_size]
    assert made.first_state is not None
    pairs = zip(
        jax.tree.leaves(made.first_state()), jax.tree.leaves(init_state(config, mesh)), strict=True
    )
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_what_cannot_be_compiled_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(programs, "compile_train_step", fail)
    config = run_config(model=model_config(num_layers=1))
    mesh = make_mesh(config.parallel, jax.devices()[:1])
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        compile_programs([config], mesh, np.ones(64, np.int32), random_start=False)


@pytest.mark.slow
def test_a_cpu_compiles_the_validation_when_it_is_needed(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, after the first steps; a resumed run draws no parameters."""
    events: list[str] = []

    def noted(module: Any, name: str, word: str) -> None:
        function = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            events.append(word)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    noted(programs, "compile_init", "init")
    noted(programs, "compile_train_step", "step")
    noted(validation, "compile_eval_step", "validation")
    noted(loop, "to_device", "batch")
    config = run_config(
        tmp_path / "run",
        tiny_dataset,
        steps=4,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        eval=EvalConfig(every=2, batches=1),
        checkpoint=CheckpointConfig(every=2),
    )
    loop.train(config, callback=lambda record: record["split"] != "validation")
    assert sorted(events[:2]) == ["init", "step"]
    assert events[2:] == ["batch", "batch", "validation"]
    events.clear()
    loop.train(config)
    assert events == ["step", "batch", "batch", "validation"]
