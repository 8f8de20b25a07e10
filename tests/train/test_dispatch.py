"""In which thread a CPU runs a step, and when the loop reads the metrics of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.config import EvalConfig, load
from llm_jax.train import cpu_dispatch, loop
from llm_jax.train.reporter import Reporter


def test_large_steps_run_inline() -> None:
    assert cpu_dispatch.runs_inline(load("gpt2_124m"))
    assert not cpu_dispatch.runs_inline(load("quickstart"))


@pytest.mark.slow
@pytest.mark.parametrize("inline", [True, False])
def test_a_step_is_timed_when_it_is_done(
    inline: bool, tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run inline, a step is over when the call returns; else the next is dispatched before."""
    events: list[str] = []
    to_device, account = loop.to_device, Reporter.account

    def dispatch(*args: Any) -> Any:
        events.append("dispatch")
        return to_device(*args)

    def read(reporter: Reporter, step: int, *args: Any) -> None:
        events.append(f"read {step}")
        account(reporter, step, *args)

    monkeypatch.setattr(loop, "to_device", dispatch)
    monkeypatch.setattr(Reporter, "account", read)
    monkeypatch.setattr(cpu_dispatch, "INLINE_FLOPS", 0.0 if inline else float("inf"))
    model = model_config(vocab_size=VOCAB, num_layers=1)
    evaluation = EvalConfig(every=100, batches=1)
    loop.train(run_config(tmp_path / "run", tiny_dataset, steps=3, model=model, eval=evaluation))
    if inline:
        assert events == ["dispatch", "read 1", "dispatch", "read 2", "dispatch", "read 3"]
    else:
        assert events == ["dispatch", "dispatch", "read 1", "dispatch", "read 2", "read 3"]
