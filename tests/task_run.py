"""A run of random weights whose tokenizer is that of the tiny dataset, for tests of tasks."""

from __future__ import annotations

from pathlib import Path

import jax
import tiny

from llm_jax.config import DataConfig
from llm_jax.convert.hf_import import write_run
from llm_jax.data.dataset import TokenDataset


def random_run(folder: Path, dataset: Path, **changes: int) -> Path:
    """Writes the run; `changes` replace fields of the model. Its vocabulary is padded."""
    tokenizer = TokenDataset.open(dataset).tokenizer
    fields = {"vocab_size": tokenizer.vocab_size + 8, "max_seq_len": 256} | changes
    model = tiny.model_config(**fields)
    data = DataConfig(path=str(dataset), seq_len=64, batch_size=8)
    folder.mkdir(parents=True)
    config = tiny.run_config(out=folder, model=model, data=data)
    write_run(folder, config, jax.device_get(tiny.parameters(model, size=0.3)), tokenizer)
    return folder
