"""A save that takes longer than its deadline is called that."""

from __future__ import annotations

from pathlib import Path

import orbax.checkpoint as ocp
import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.config import CheckpointConfig
from llm_jax.train.failures import FileFailure
from llm_jax.train.loop import train


def test_a_time_out_is_called_one(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = ocp.CheckpointManager.wait_until_finished

    def late(manager: ocp.CheckpointManager) -> None:
        finished(manager)
        if manager.latest_step() == 4:
            raise TimeoutError("Timed out while waiting for async_commit_complete barrier.")

    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", late)
    out = tmp_path / "run"
    config = run_config(
        out,
        tiny_dataset,
        steps=8,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        checkpoint=CheckpointConfig(every=2),
    )
    with pytest.raises(FileFailure) as failed:
        train(config)
    assert str(failed.value) == (
        f"The run in {out} timed out while it read or wrote a file (Timed out while waiting for "
        "async_commit_complete barrier.); its checkpoint 4 is intact: check for slow or hanging "
        "storage and hosts, then run the same command again to resume."
    )
    assert failed.value.exit_code == 1
