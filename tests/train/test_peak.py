"""MFU is relative to a peak that was measured on a quiet machine, or it is not given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.commands.train import text
from llm_jax.config import EvalConfig
from llm_jax.report.outcome import compare
from llm_jax.train import loop, peak
from llm_jax.train.metrics import read_metrics


def machine(patch: pytest.MonkeyPatch, rates: list[float], waited: float) -> None:
    """Matmuls of these FLOP/s, in which the threads ran for 1 s and waited for `waited` s."""
    left = list(rates)
    times = iter([(5.0, 2.0), (6.0, 2.0 + waited)])
    patch.setattr(peak, "measured_matmul_peak", lambda dtype: left.pop(0))
    patch.setattr(peak, "_processor_times", lambda: next(times))


@pytest.mark.parametrize(
    ("rates", "waited", "wanted", "words"),
    [
        ([200e9, 210e9], 0.1, 210e9, ""),
        ([200e9, 230e9], 0.1, None, "200 and 230 GFLOP/s"),
        ([53e9, 53e9], 1.0, None, "waited for a processor for 50%"),
    ],
)
def test_a_peak_is_that_of_a_quiet_machine(
    rates: list[float],
    waited: float,
    wanted: float | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, rates, waited)
    found, why_not = peak.quiet_matmul_peak("float32")
    assert found == wanted
    assert words in why_not


def test_the_threads_of_a_process_have_run() -> None:
    before = peak._processor_times()
    peak.measured_matmul_peak("float32", size=256, repeats=2)
    after = peak._processor_times()
    assert after[0] > before[0] and after[1] >= before[1]


@pytest.mark.slow
def test_a_run_on_a_busy_machine_has_no_mfu(
    tmp_path: Path,
    tiny_dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(monkeypatch, [53e9, 53e9], 1.0)
    model = model_config(vocab_size=VOCAB, num_layers=1)
    evaluation = EvalConfig(every=100, batches=1)
    config = run_config(tmp_path / "run", tiny_dataset, steps=2, model=model, eval=evaluation)
    result = loop.train(config)
    said = capsys.readouterr().err
    assert result["mfu"] is None and "no MFU, since its measurement waited" in said
    assert "MFU" not in text(result)
    trained = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["split"] == "train"]
    assert [r["mfu"] for r in trained] == [None, None]
    assert json.loads(json.dumps(compare(tmp_path / "run")))["mfu"] is None
