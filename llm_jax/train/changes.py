"""What changed since the run's last start, and how that affects what the run learns."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_jax.config import (
    ConfigError,
    RunConfig,
    UserError,
    from_dict,
    read_dataset_info,
    to_dict,
)
from llm_jax.runs.history import FILE, Entry, History, Text, read_history
from llm_jax.train.metrics import METRICS_FILE, read_metrics
from llm_jax.train.optimizers.schedule import learning_rate
from llm_jax.train.run_folder import changed_fields, in_words

ROUNDING = ("run.parallel.", "run.compute.", "run.compute.accumulate")
SCHEDULE = tuple(
    f"run.optim.{name}"
    for name in ("learning_rate", "schedule", "warmup_steps", "decay_fraction", "final_fraction")
)
JUMP = 1.5
"""Advice is given if the learning rate rises at once by more than this factor."""


def resume(
    config: RunConfig, saved: RunConfig, text: Text, step: int
) -> tuple[History, list[Entry]]:
    """The history of the run in `config.out`, which resumes after `step`, and its new lines.

    Args:
      saved: the config of the checkpoint, for a run without a history file.
      text: the dataset's text now.
    """
    out = Path(config.out)
    history, lines = read_history(out, saved), list[Entry]()
    if not (out / FILE).is_file():
        was = _text_of(saved.data.path) or text
        lines = [Entry(0, to_dict(saved), was, time.time())]
        history = History(tuple(lines))
    before = history.at(step)
    changed = changed_fields(_compared(before.config), _compared(to_dict(config)), "run")
    if before.text and before.text != text:
        changed["text"] = [before.text.fingerprint, text.fingerprint]
    gone_back = history.entries[-1].step > step
    if not changed and not gone_back and before.text:
        return history, lines
    line = Entry(
        step,
        to_dict(config),
        text,
        time.time(),
        history.sequences(step),
        history.tokens(step),
        changed,
        parent=history.parent,
        branch=before.branch if before.step == step else None,
    )
    after = history.followed_by(line)
    effect = "; ".join(_effects(config, changed, history, after, step))
    line = replace(line, effect=effect)
    return history.followed_by(line), [*lines, line]


def check_standing(out: str, history: History, step: int, record: dict[str, Any] | None) -> None:
    """Raises `ConfigError` unless `history` and checkpoint `step` agree on what has been read.

    Args:
      record: the checkpoint's metadata. Fields that an older version did not write are ignored.
    """
    noted, known = (record or {}).get("data", {}), history.standing(step)
    for name in ("sequences", "tokens"):
        if noted.get(name, known[name]) != known[name]:
            raise ConfigError(
                f"Checkpoint {step} of the run in {out} had read {noted[name]:,} {name}, but "
                f"{FILE} there says {known[name]:,}: restore the original file."
            )


def sentence(line: Entry) -> str | None:
    """What `line` changed, in one sentence. None if nothing changed, or before the first step."""
    if not line.changed or line.step == 0:
        return None
    return (
        f"Changed after step {line.step} ({line.tokens:,} tokens): "
        f"{in_words(shortened(line.changed))}: {line.effect}."
    )


def shortened(changed: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """`changed` with field names without `run.`, and digests cut to 12 digits."""
    short = {name.removeprefix("run."): pair for name, pair in changed.items()}
    if "text" in short:
        short["text"] = [digest[:12] for digest in short["text"]]
    for name, pair in short.items():
        if name.startswith("data.mixture"):
            short[name] = [_mixture_in_short(value) for value in pair]
    return short


def _mixture_in_short(value: Any) -> Any:
    """A mixture, its sources or its stages as in a config, in few words."""
    if isinstance(value, dict):
        return {name: _mixture_in_short(held) for name, held in value.items()}
    if not isinstance(value, list):
        return value
    if "name" in value[0]:
        return ", ".join(source["name"] for source in value)
    return "; ".join(
        f"from {stage['start']:g}: "
        + ", ".join(
            f"{amount['source']} "
            + " ".join(
                f"{amount[kind]:g}" + (f" {kind}" if kind != "weight" else "")
                for kind in ("weight", "tokens", "epochs")
                if amount[kind] is not None
            )
            for amount in stage["read"]
        )
        for stage in value
    )


def next_rate(config: RunConfig, step: int) -> float:
    """Learning rate of the step after `step`. Skipped steps do not advance the schedule."""
    records = read_metrics(Path(config.out) / METRICS_FILE)
    skipped = [r["skipped"] for r in records if r["step"] <= step and "skipped" in r]
    made = step - int(max(skipped, default=0))
    return float(learning_rate(config.optim, config.steps)(made))


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without the fields that do not affect training: the folder and the file's format."""
    return {name: value for name, value in config.items() if name not in ("out", "format")}


def _text_of(path: str) -> Text | None:
    """The training text of the dataset in `path`; None if it is gone."""
    try:
        info = read_dataset_info(path)
        return Text(info["fingerprint"], info["splits"]["train"]["tokens"])
    except UserError:
        return None


def _effects(
    config: RunConfig, changed: dict[str, list[Any]], before: History, after: History, step: int
) -> list[str]:
    """One clause for each effect of the changes."""
    old = from_dict(before.at(step).config | {"out": config.out}, RunConfig)
    data, was = config.data, old.data
    found = _rate(config, old, step)
    a, b = before.step_tokens(step + 1), after.step_tokens(step + 1)
    if a != b:
        found.append(f"a step reads {b:,} tokens instead of {a:,}, and the schedule stays in steps")
    if "text" in changed:
        found += _other_texts(before, after.at(step).text, step)
    elif (data.seq_len, data.seed) != (was.seq_len, was.seed):
        found.append(
            f"the rest of this epoch is cut into sequences of {data.seq_len} and shuffled again: "
            "no token is skipped or read twice, and no context includes text that was read before"
        )
    if _hidden(config) != _hidden(old):
        found.append("other tokens are hidden from the next step on")
    if data.mixture and was.mixture and data.mixture.stages != was.mixture.stages:
        found.append(
            "the shares of the sources change, in the held-out loss too; each is read on from "
            "where it was left"
        )
    a, b = before.tokens(old.steps), after.tokens(config.steps)
    if a != b:
        found.append(f"the run ends after {b:,} tokens instead of {a:,}")
    if _held_out(config) != _held_out(old) or "text" in changed:
        found.append("held-out losses are measured on other batches than before")
    if config.seed != old.seed:
        found.append("run.seed now affects only the rounding to bfloat16, not the parameters")
    told = (*ROUNDING, *SCHEDULE)
    optim = [n for n in changed if n.startswith("run.optim.") and not n.startswith(told)]
    if optim:
        names = ", ".join(name.removeprefix("run.") for name in optim)
        found.append(f"the next step uses the new {names}")
    if any(name.startswith(ROUNDING) for name in changed):
        found.append("sums are rounded differently")
    return found or ["what the run learns stays the same"]


def _other_texts(before: History, now: Text | None, step: int) -> list[str]:
    """Clauses about the texts that are read now and were not before the change."""
    read = {p.fingerprint for entry in before.entries if entry.text for p in entry.text.parts}
    last = before.at(step).text
    still = {part.fingerprint for part in last.parts} if last else set()
    found = []
    for part in now.parts if now else ():
        if part.fingerprint in still:
            continue
        place = "where this run stopped reading it" if part.fingerprint in read else "its beginning"
        what = f"{part.name} is another text" if part.name else "the dataset holds another text"
        found.append(f"{what}, which is read from {place} on")
    return found or ["fewer sources are read"]


def _rate(config: RunConfig, old: RunConfig, step: int) -> list[str]:
    a, b = next_rate(old, step), next_rate(config, step)
    if abs(a - b) <= 1e-6 * max(a, b):
        return []
    clause = f"learning rate {a:.2e} → {b:.2e} at once"
    warm = step >= config.optim.warmup(config.steps)
    if b > JUMP * a and warm and config.optim.learning_rate == old.optim.learning_rate:
        clause += f" (to stay there: --optim.schedule constant --optim.learning-rate {a:.2e})"
    return [clause]


def _held_out(config: RunConfig) -> tuple[Any, ...]:
    """What determines which windows are evaluated during training."""
    parts = config.compute.accumulate
    sizes = config.data.seq_len, config.data.batch_size // parts, config.eval.batches * parts
    return (*sizes, tuple(config.data.folders), _hidden(config))


def _hidden(config: RunConfig) -> tuple[float, ...]:
    """What determines which tokens `masked` and `spans` hide of a window; nothing for others."""
    data = config.data
    hides = config.objective in ("masked", "spans")
    return (data.seed, data.mask_rate, data.mean_span) if hides else ()
