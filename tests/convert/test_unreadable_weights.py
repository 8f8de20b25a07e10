"""Weights that cannot be read are one sentence, without tracebacks of Orbax's threads and tasks."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny

from llm_jax.convert.hf_import import write_run
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import parameter_shapes
from llm_jax.train.failures import Damaged
from llm_jax.train.load import load_run


def on_one_device(config: Any) -> Any:
    """As for a mesh, which has Orbax read."""
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda _: one, parameter_shapes(config.model))


def test_what_orbax_gives_up_is_not_printed(
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tiny.run_config(tmp_path, model=tiny.model_config(vocab_size=tiny.VOCAB))
    params = jax.device_get(tiny.parameters(config.model))
    write_run(tmp_path, config, params, Tokenizer.load(tiny_dataset))
    for file in (tmp_path / "checkpoints" / "0" / "params").glob("ocdbt.process_0/d/*"):
        file.write_bytes(b"x" * file.stat().st_size)
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    for where in (None, on_one_device):
        with pytest.raises(Damaged, match=r"Checkpoint 0 of the run .* cannot be read"):
            load_run(tmp_path, verify=False, where=where)
    time.sleep(0.2)  # its threads and its tasks end later
    gc.collect()
    assert told == []
    assert caplog.records == []
