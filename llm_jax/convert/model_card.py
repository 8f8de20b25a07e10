"""The README.md of an exported model: what is recorded about the run, and nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import OptimConfig, RunConfig, from_dict, layers_of
from llm_jax.config.secrets import redact
from llm_jax.convert.others import other_of
from llm_jax.convert.release import card_rows, licences
from llm_jax.convert.text_facts import TextFacts, text_facts, together
from llm_jax.runs.history import Entry, History, read_history
from llm_jax.runs.metric_names import own_figures
from llm_jax.train.lineage import lineage_at
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
    """Markdown with the front matter of the Hugging Face hub, without what looks like a secret."""
    model, history = config.model, read_history(run, config)
    lineage, facts = lineage_at(run, step, config), _facts(config, step, history)
    size = sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))
    one, other = layers_of(model), other_of(model)
    what = other.noun if other else "A decoder-only Transformer"
    loader = architecture if other else "AutoModelForCausalLM"
    heads = f"{one.num_heads} heads, {one.num_kv_heads} key/value heads of {one.head_dim}"
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {other.pipeline if other else 'text-generation'}",
        "tags: [llm-jax]",
        *facts.front_matter(licences(lineage)),
        "---",
        "",
        f"# {config.name}",
        "",
        f"{what} with {size:,} parameters in the layout of `{architecture}`, "
        f"exported with llm-jax at step {step:,}.",
        "",
        "| | |",
        "|---|---|",
        f"| layers × width | {layers_of(model).num_layers} × {model.d_model} |",
        f"| attention | {heads} |",
        f"| vocabulary | {np.shape(params['embed']['tokens'])[0]:,} |",
        f"| longest context | {model.max_seq_len:,} tokens |",
        *_training(config, step, run, history),
        *_data(facts),
        *_kind(step, history),
        *card_rows(lineage),
        "",
        "```python",
        f"from transformers import {loader}, AutoTokenizer",
        "",
        'folder = "."  # the folder of this file',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = {loader}.from_pretrained(folder)",
        *(other.use(facts.prompt) if other else _use(facts.prompt)),
        "```",
    ]
    return redact("\n".join(lines) + "\n")


def _use(prompt: str) -> list[str]:
    return [
        f'inputs = tokenizer({prompt!r}, return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))",
    ]


def _facts(config: RunConfig, step: int, history: History) -> TextFacts:
    """Facts about the text that was read last. Imported weights were trained on other text."""
    if step == 0:
        return TextFacts(licences={})
    text = _made(history, step)[-1].text
    known = {part.name: part.fingerprint for part in text.parts} if text else {}
    return together(
        [text_facts(path, known.get(name)) for name, path in config.data.folders.items()]
    )


def _made(history: History, step: int) -> list[Entry]:
    """The lines of the history that apply to the first `step` steps."""
    return [entry for entry in history.entries if entry.step < step]


def _training(config: RunConfig, step: int, run: Path, history: History) -> list[str]:
    if step == 0:
        return ["| training | none recorded: initial or imported weights |"]
    first, *later = _made(history, step)
    changes = [entry for entry in later if entry.learns]
    optim = from_dict(first.config["optim"], OptimConfig, "history.config.optim")
    rows = [f"| training | {_steps(config, step, history, bool(changes))} |"]
    if history.parent:
        rows.insert(0, f"| began with | the weights of {history.parent['name']} |")
    rows.append(
        f"| optimizer | {OPTIMIZERS.get(optim.kind, optim.kind)}, peak learning rate "
        f"{optim.learning_rate:g}, {optim.schedule} schedule |"
    )
    for entry in changes:
        rows.append(f"| changed after step {entry.step:,} | {entry.effect} |")
    measured = [
        record
        for record in read_metrics(run / METRICS_FILE)
        if record.get("split") == "validation" and record["step"] == step
    ]
    if measured and math.isfinite(measured[-1]["loss"]):
        last = measured[-1]
        if "bits_per_byte" in last:
            rows.append(f"| held-out loss at this step | {last['loss']:.4f} nats per token |")
            rows.append(f"| held-out bits per byte at this step | {last['bits_per_byte']:.4f} |")
        else:
            rows.append(f"| held-out loss at this step | {last['loss']:.4f} |")
        for name, value in own_figures(last).items():
            rows.append(f"| held-out {name.replace('_', ' ')} at this step | {value:.4f} |")
    return rows


def _steps(config: RunConfig, step: int, history: History, changed: bool) -> str:
    tokens = f"{history.tokens(step):,}"
    if changed:
        return f"{step:,} steps, {tokens} tokens in all"
    most = "up to " if config.data.ramp_from else ""
    return (
        f"{step:,} steps of {most}{config.batch_tokens:,} tokens, {tokens} in all, sequences of "
        f"{config.data.seq_len:,}"
    )


def _data(facts: TextFacts) -> list[str]:
    if facts.tokens is None:
        return []
    licences = ", ".join(f"{name} ({n:,} documents)" for name, n in facts.licences.items())
    return [f"| data | {facts.tokens:,} tokens; licences of the text: {licences} |"]


def _kind(step: int, history: History) -> list[str]:
    """What kind of model it is. Nothing is known about weights from elsewhere."""
    if step == 0 or history.parent:
        return []
    return ["", "This is a base model: it continues text and was not tuned to follow instructions."]
