"""Profiles of the steps that the config names, and of those after a signal."""

from __future__ import annotations

import gzip
import json
import os
import signal
from pathlib import Path

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.config import ConfigError, EvalConfig
from llm_jax.train.loop import train
from llm_jax.train.metrics import Log


@pytest.mark.slow
def test_a_range_and_a_signal(
    tmp_path: Path,
    tiny_dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Steps 2 and 3 are asked for by the config; the signal comes after step 4 of 6."""
    advance = Log.advance

    def advance_and_signal(log: Log, step: int) -> None:
        advance(log, step)
        if step == 4:
            os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(Log, "advance", advance_and_signal)
    before = signal.getsignal(signal.SIGUSR2)
    out = tmp_path / "run"
    config = run_config(
        out,
        tiny_dataset,
        steps=6,
        profile="2:3",
        model=model_config(vocab_size=VOCAB, num_layers=1),
        eval=EvalConfig(every=100, batches=1),
    )
    assert train(config)["step"] == 6
    assert signal.getsignal(signal.SIGUSR2) == before
    said = " ".join(capsys.readouterr().err.split())
    assert f"Profile of steps 2 to 3 in {out}/profile." in said
    assert f"Profile of steps 5 to 6 in {out}/profile." in said
    first, _ = sorted((out / "profile").rglob("*.trace.json.gz"))
    with gzip.open(first) as file:
        names = {event.get("name", "") for event in json.load(file)["traceEvents"]}
    # What XLA ran for these steps is in it, not Python's side alone.
    assert any("dot" in name or "fusion" in name for name in names)


@pytest.mark.parametrize("text", ["3", "0:2", "3:2", "1:21", "a:b"])
def test_a_range_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="write first:last, two of the steps 1 to 20, such as"):
        run_config(profile=text)
