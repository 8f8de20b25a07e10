"""The README.md of an exported model: what is recorded about the run, and nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import INFO_FILE, RunConfig, read_dataset_info
from llm_jax.train.metrics import METRICS_FILE, read_metrics

OPTIMIZERS = {
    "adamw": "AdamW",
    "muon": "Muon",
    "adafactor": "Adafactor",
    "schedule_free": "schedule-free AdamW",
}


def model_card(
    config: RunConfig, step: int, params: dict[str, Any], architecture: str, run: Path
) -> str:
    """Markdown with the front matter of the Hugging Face hub."""
    model = config.model
    size = sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))
    heads = f"{model.num_heads} heads, {model.num_kv_heads} key/value heads of {model.head_dim}"
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [llm-jax]",
        "---",
        "",
        f"# {config.name}",
        "",
        f"A decoder-only Transformer of {size:,} parameters in the layout of `{architecture}`, "
        f"exported with llm-jax at step {step:,}.",
        "",
        "| | |",
        "|---|---|",
        f"| layers × width | {model.num_layers} × {model.d_model} |",
        f"| attention | {heads} |",
        f"| vocabulary | {model.vocab_size:,} |",
        f"| longest context | {model.max_seq_len:,} tokens |",
        *_training(config, step, run),
        *_data(config),
        "",
        "This is a base model: it continues text and was not tuned to follow instructions.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # where this file lies',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        'inputs = tokenizer("The", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _training(config: RunConfig, step: int, run: Path) -> list[str]:
    if step == 0:
        return ["| training | none recorded: initial or imported weights |"]
    most = "up to " if config.data.ramp_from else ""
    rows = [
        f"| training | {step:,} steps of {most}{config.batch_tokens:,} tokens, "
        f"{config.tokens(step):,} in all, sequences of {config.data.seq_len:,} |",
        f"| optimizer | {OPTIMIZERS[config.optim.kind]}, peak learning rate "
        f"{config.optim.learning_rate:g}, {config.optim.schedule} schedule |",
    ]
    measured = [
        record
        for record in read_metrics(run / METRICS_FILE)
        if record.get("split") == "validation" and record["step"] == step
    ]
    if measured:
        last = measured[-1]
        rows.append(f"| held-out loss at this step | {last['loss']:.4f} nats per token |")
        rows.append(f"| held-out bits per byte at this step | {last['bits_per_byte']:.4f} |")
    return rows


def _data(config: RunConfig) -> list[str]:
    if not (Path(config.data.path) / INFO_FILE).is_file():
        return []
    info = read_dataset_info(config.data.path)
    licences = ", ".join(f"{name} ({n:,} documents)" for name, n in info["licences"].items())
    return [f"| data | {info['tokens']:,} tokens; licences of the text: {licences} |"]
