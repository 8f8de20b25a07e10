"""What a run is and what it has read, as rows of (name, words), from the files of its folder."""

from __future__ import annotations

import time
from typing import Any

from llm_jax.config import ModelConfig, RunConfig, UserError, read_dataset_info
from llm_jax.config.wording import counted
from llm_jax.facts.counts import total_parameters
from llm_jax.plan.sentences import describe
from llm_jax.runs.history import History
from llm_jax.runs.starts import Start

LATEST = 2.0**38
"""Seconds since the epoch that a calendar can show."""

Rows = list[list[str]]


def run_rows(config: RunConfig, history: History, starts: list[Start]) -> Rows:
    """The model, how it was trained, and on what."""
    model, optim, compute = config.model, config.optim, config.compute
    rows = []
    if isinstance(model, ModelConfig) and model.kind == "decoder":
        rows += [
            ["Model", describe(model)],
            ["Parameters", f"{total_parameters(model):,}"],
        ]
    else:
        rows.append(["Model", f"of kind {model.kind}"])
    axes = [f"{name} {size}" for name, size in vars(config.parallel).items()
            if isinstance(size, int) and size > 1 and name != "rounds"]  # fmt: skip
    rows += [
        ["Objective", config.objective],
        ["Steps", f"{config.steps:,} of {config.batch_tokens:,} tokens: "
         f"{counted(config.data.batch_size, 'sequence')} of {config.data.seq_len:,}"],
        ["Optimizer", f"{optim.kind}, learning rate {optim.learning_rate:g}, "
         f"{optim.schedule} schedule, warm-up of {counted(optim.warmup(config.steps), 'step')}, "
         f"weight decay {optim.weight_decay:g}"],
        ["Precision", f"{compute.dtype}, parameters in {optim.param_dtype}"],
        ["Mesh", ", ".join(axes) or "one device"],
        ["Seed", str(config.seed)],
    ]  # fmt: skip
    if history.parent:
        parent = history.parent
        rows.append(["Began with", f"the weights of {parent['run']}, step {parent['step']:,}"])
    if branch := history.branch:
        rows.append(["Branch of", f"{branch['run']}, step {branch['step']:,}"])
    for name, found in (
        ("Devices", {start.devices for start in starts}),
        ("Software", {", ".join(f"{k} {v}" for k, v in s.versions.items()) for s in starts}),
    ):
        if words := "; ".join(sorted(filter(None, found))):
            rows.append([name, words])
    if starts:
        ran = f"{_day(starts[0].began)} to {_day(starts[-1].seen)}"
        rows.append(["Ran", f"{ran}, {counted(len(starts), 'start')}"])
    return rows


def text_rows(config: RunConfig, history: History, step: int) -> tuple[Rows, list[str]]:
    """What the first `step` steps read, and the texts that it is from.

    Returns:
      The rows, and why facts about texts are missing, if they are.
    """
    tokens, text = history.tokens(step), history.at(step).text
    read = f"{tokens:,} tokens in {history.sequences(step):,} sequences"
    rows, problems = [["Read", read]], []
    one_text = len({entry.text and entry.text.fingerprint for entry in history.entries}) == 1
    if text and one_text and not text.sources:
        rows.append(["Epochs", f"{tokens / text.tokens:.2f} of {text.tokens:,} tokens"])
    known = {part.name: part.fingerprint for part in text.parts} if text else {}
    for name, path in config.data.folders.items():
        info, problem = _dataset(path, known.get(name))
        if name:
            rows.append([f"Source {name}", path])
        rows += [] if info is None else _dataset_rows(info)
        problems += [] if problem is None else [problem]
    return rows, problems


def _dataset(path: str, fingerprint: str | None) -> tuple[dict[str, Any] | None, str | None]:
    """The facts of the dataset in `path` if it is the one that was read, else why they are not."""
    try:
        info = read_dataset_info(path)
    except UserError as error:
        return None, f"The facts about the text are left out: {error}"
    if fingerprint is not None and info["fingerprint"] != fingerprint:
        return None, f"The facts about the text are left out: {path} has another text now."
    return info, None


def _dataset_rows(info: dict[str, Any]) -> Rows:
    train, held_out = info["splits"]["train"], info["splits"]["validation"]
    left_out = {**info["dropped"], "could not be used": (info.get("lost") or {}).get("count", 0)}
    rows = [
        ["Text", "; ".join(source["input"] for source in info["sources"])],
        ["Documents", f"{info['documents']['in']:,} found, {info['documents']['out']:,} kept: "
         f"{train['documents']:,} to learn from, {held_out['documents']:,} held out "
         f"({held_out['tokens']:,} tokens)"],
        ["Left out", ", ".join(f"{why} {n:,}" for why, n in left_out.items() if n) or "none"],
        ["Licences", ", ".join(f"{name} ({counted(n, 'document')})"
                               for name, n in info["licences"].items()) or "not known"],
        ["Tokenizer", f"{info['vocab_size']:,} pieces, {info['bytes'] / info['tokens']:.2f} bytes "
         f"per token, SHA-256 {info['tokenizer_sha256'][:12]}"],
        ["Fingerprint", info["fingerprint"][:12]],
    ]  # fmt: skip
    return rows


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(max(seconds, 0), LATEST)))
