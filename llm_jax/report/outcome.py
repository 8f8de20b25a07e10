"""Results of a run compared with its plan: loss, step time, throughput, cost."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from llm_jax.config import RunConfig, UserError, read_config
from llm_jax.facts.counts import total_parameters
from llm_jax.laws.run_curves import records
from llm_jax.runs.history import History, read_history
from llm_jax.runs.plan_file import PlanRecord, read_plan

METRICS = "metrics.jsonl"


def finished(folder: Path, steps: int) -> bool:
    """Whether the run folder has a validation loss at step `steps`."""
    file = folder / METRICS
    return file.is_file() and any(r["step"] == steps for r in records(file, "validation"))


def config_of(folder: Path) -> RunConfig:
    """The config in a run folder.

    Raises:
      UserError: the folder has no run.json.
      ConfigError: run.json is not a valid config.
    """
    file = folder / "run.json"
    if not file.is_file():
        raise UserError(f"There is no run in {str(folder)!r}: give the `out` folder of a run.")
    return read_config(file, RunConfig)


def compare(folder: Path) -> dict[str, Any]:
    """Predicted and measured figures of the run in `folder`; a missing figure is None.

    Losses are in nats per token on the validation batches; times are in seconds. The measured time
    is that of training steps, without compilation, evaluation and saving.

    Raises:
      UserError: there is no run, or it has not measured anything yet.
    """
    config, file = config_of(folder), folder / METRICS
    history = read_history(folder, config)
    steps = records(file, "train", "tokens_per_second") if file.is_file() else []
    losses = records(file, "validation", "bits_per_byte") if file.is_file() else []
    if not steps or not losses:
        raise UserError(f"The run in {str(folder)!r} has no measurements yet: train it first.")
    last = losses[-1]
    seconds, before = 0.0, 0
    for record in steps:
        seconds += (record["tokens"] - before) / record["tokens_per_second"]
        before = record["tokens"]
    plan, done = read_plan(folder), last["step"] == config.steps
    warnings = _warnings(config, plan, history, last["step"])
    kept = plan is not None and _kept(config, history, plan)
    loss = plan.loss if plan and kept and done else None
    predicted = plan.step_seconds * config.steps if plan and kept else None
    measured_step = median(
        history.step_tokens(record["step"]) / record["tokens_per_second"] for record in steps
    )
    return {
        "name": config.name,
        "params": _params(config),
        "step": last["step"],
        "steps": config.steps,
        "tokens": last["tokens"],
        "predicted_loss": loss,
        "predicted_loss_interval": [plan.loss_low, plan.loss_high] if plan and loss else None,
        "measured_loss": last["loss"],
        "loss_error": _error(loss, last["loss"]),
        "measured_bits_per_byte": last["bits_per_byte"],
        "predicted_step_seconds": plan.step_seconds if plan and kept else None,
        "predicted_step_seconds_range": [plan.step_seconds_low, plan.step_seconds_high]
        if plan and kept
        else None,
        "measured_step_seconds": measured_step,
        "step_seconds_error": _error(plan.step_seconds if plan and kept else None, measured_step),
        "predicted_seconds": predicted,
        "measured_seconds": seconds,
        "seconds_error": _error(predicted if done else None, seconds),
        "predicted_tokens_per_second": config.batch_tokens / plan.step_seconds
        if plan and kept
        else None,
        "measured_tokens_per_second": before / seconds,
        "mfu": _middle([r["mfu"] for r in steps if r.get("mfu") is not None]),
        "predicted_usd": plan.usd if plan and kept else None,
        "measured_usd": plan.usd * seconds / 3600 / plan.hours if plan and plan.usd else None,
        "machine": plan.machine if plan else None,
        "law": plan.law if plan else None,
        "law_text": plan.law_text if plan else None,
        "warnings": warnings,
    }


def _error(predicted: float | None, measured: float) -> float | None:
    """(predicted − measured)/measured."""
    return None if predicted is None else predicted / measured - 1


def _middle(values: list[float]) -> float | None:
    return median(values) if values else None


def _kept(config: RunConfig, history: History, plan: PlanRecord) -> bool:
    """Whether the run is still the one that was planned, from its beginning."""
    now = _params(config), history.tokens(config.steps), config.objective
    planned = plan.params, plan.tokens, "next_token"
    return now == planned and not (changes(history) or history.parent)


def _params(config: RunConfig) -> int | None:
    """Parameters of the model; None for a family that is not counted here."""
    return total_parameters(config.model) if config.model.kind == "decoder" else None


def _shown_params(config: RunConfig) -> str:
    params = _params(config)
    return config.model.kind if params is None else f"{params:,}"


def changes(history: History) -> list[str]:
    """A sentence for each line of the history that changed what the run learns."""
    return [
        f"Changed after step {entry.step:,} ({entry.tokens:,} tokens): {entry.effect}."
        for entry in history.entries
        if entry.learns and entry.step > 0
    ]


def _warnings(config: RunConfig, plan: PlanRecord | None, history: History, step: int) -> list[str]:
    found = changes(history)
    if history.parent:
        found.append(f"The run began with the weights of {history.parent['run']}.")
    tokens = history.tokens(config.steps)
    if plan is None:
        found.append("The run was not planned with `llm-jax plan`: there is no prediction.")
    elif not _kept(config, history, plan):
        found.append(
            f"The run was changed after it was planned ({plan.params:,} parameters and "
            f"{plan.tokens:,} tokens then, {_shown_params(config)} and {tokens:,} now): "
            "the prediction does not apply."
        )
    elif plan.law_text:
        found.append(
            f"The law was fitted on another dataset ({plan.law_text}): its loss does not "
            "predict this run. `llm-jax ladder --anchor` moves a law to a dataset, `ladder` "
            "alone fits one."
        )
    if step < config.steps:
        found.append(f"The run is at step {step:,} of {config.steps:,}: its loss is not final.")
    return found


def curves(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """(tokens, loss) of train and validation, and (tokens, seconds a step) as `step`."""
    config, file = config_of(folder), folder / METRICS
    history = read_history(folder, config)
    train = records(file, "train", "tokens_per_second")
    return {
        "train": [(r["tokens"], r["loss"]) for r in train],
        "validation": [(r["tokens"], r["loss"]) for r in records(file, "validation")],
        "step": [
            (r["tokens"], history.step_tokens(r["step"]) / r["tokens_per_second"]) for r in train
        ],
    }
