"""Results of a run compared with its plan: loss, step time, throughput, cost, goodput."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

from llm_jax.config import ModelConfig, RunConfig, UserError, read_config
from llm_jax.config.architecture import has_head
from llm_jax.facts.counts import total_parameters
from llm_jax.laws.run_curves import records
from llm_jax.report.verdict import verdicts
from llm_jax.runs.history import History, read_history
from llm_jax.runs.json_lines import read_records
from llm_jax.runs.places import run_file
from llm_jax.runs.plan_file import PlanRecord, read_plan
from llm_jax.runs.rollbacks import read_rollbacks
from llm_jax.runs.starts import Start, accounted, goodput, read_starts

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
    return read_config(run_file(folder), RunConfig)


def compare(folder: Path) -> dict[str, Any]:
    """Predicted and measured figures of the run in `folder`; a missing figure is None.

    Losses are in nats per token on the validation batches; times are in seconds. `seconds` is the
    time of training steps, without compilation, evaluation and saving; `hours`, `usd` and `kwh` are
    of all starts together, without the time between them. `verdict` says of the loss and the step
    time whether they are within their 90% interval, below or above it.

    Raises:
      UserError: there is no run, or it has not measured anything yet.
    """
    config, file = config_of(folder), folder / METRICS
    if has_head(config.model):
        raise UserError(
            f"The run in {str(folder)!r} learns from labelled examples, which are not planned: "
            "`llm-jax eval` measures it."
        )
    history = read_history(folder, config)
    steps = records(file, "train", "tokens_per_second") if file.is_file() else []
    losses = records(file, "validation") if file.is_file() else []
    if not steps or not losses:
        raise UserError(f"The run in {str(folder)!r} has no measurements yet: train it first.")
    last, plan, starts = losses[-1], read_plan(folder), read_starts(folder)
    done = last["step"] == config.steps
    applies = plan if plan and _kept(config, history, plan) else None
    devices = next((start.devices for start in reversed(starts) if start.devices), None)
    elsewhere = plan is not None and _elsewhere(plan, devices)
    timed = None if elsewhere else applies
    warnings = _warnings(config, plan, history, last["step"])
    if plan and elsewhere:
        warnings.append(
            f"The run was planned for {plan.machine} and ran on {devices}: its time and cost say "
            "nothing about the plan."
        )
    found = {
        "name": config.name,
        "params": _params(config),
        "step": last["step"],
        "steps": config.steps,
        "tokens": last["tokens"],
        **_losses(applies if done else None, last),
        **_speed(timed, config, history, steps, done),
    }
    found |= _account(timed, starts, found["measured_seconds"])
    return found | {
        "verdict": verdicts(found),
        "skipped_steps": len(skipped_steps(folder)),
        "rollbacks": len(read_rollbacks(folder)),
        "machine": plan.machine if plan else None,
        "devices": devices,
        "law": plan.law if plan else None,
        "law_text": plan.law_text if plan else None,
        "warnings": warnings,
    }


def _losses(plan: PlanRecord | None, last: dict[str, Any]) -> dict[str, Any]:
    """The loss of the `last` evaluation, and what `plan` predicted for it."""
    loss, per_byte = plan.loss if plan else None, last.get("bits_per_byte")
    interval = [plan.loss_low, plan.loss_high] if plan and loss else None
    return {
        "predicted_loss": loss,
        "predicted_loss_interval": None if interval is None or None in interval else interval,
        "measured_loss": last["loss"],
        "loss_error": _error(loss, last["loss"]),
        "measured_bits_per_byte": per_byte if is_number(per_byte) else None,
    }


def _speed(
    plan: PlanRecord | None,
    config: RunConfig,
    history: History,
    steps: list[dict[str, Any]],
    done: bool,
) -> dict[str, Any]:
    """The time of the training steps, and what `plan` predicted for it."""
    seconds, before = 0.0, 0
    for record in steps:
        seconds += (record["tokens"] - before) / record["tokens_per_second"]
        before = record["tokens"]
    step = median(history.step_tokens(r["step"]) / r["tokens_per_second"] for r in steps)
    planned = plan.step_seconds if plan else None
    whole = planned and planned * config.steps
    mfu = [r["mfu"] for r in steps if is_number(r.get("mfu"))]
    return {
        "predicted_step_seconds": planned,
        "predicted_step_seconds_range": plan and [plan.step_seconds_low, plan.step_seconds_high],
        "measured_step_seconds": step,
        "step_seconds_error": _error(planned, step),
        "predicted_seconds": whole,
        "measured_seconds": seconds,
        "seconds_error": _error(whole if done else None, seconds),
        "predicted_tokens_per_second": planned and config.batch_tokens / planned,
        "measured_tokens_per_second": before / seconds,
        "mfu": median(mfu) if mfu else None,
    }


def _account(plan: PlanRecord | None, starts: list[Start], seconds: float) -> dict[str, Any]:
    """Time, cost and energy of all starts, and where the time went.

    Args:
      seconds: of the training steps, which count where no starts are recorded.
    """
    account = accounted(starts)
    hours = (sum(account.values()) - account["idle"] if starts else seconds) / 3600
    found = {
        "predicted_hours": plan and plan.hours,
        "measured_hours": hours,
        "goodput": goodput(starts) if starts else None,
        "wall_seconds": account if starts else None,
        "starts": len(starts) or None,
    }
    for name in ("usd", "kwh"):
        planned = getattr(plan, name) if plan else None
        found[f"predicted_{name}"] = planned
        found[f"measured_{name}"] = planned * hours / plan.hours if plan and planned else None
    return found


def _elsewhere(plan: PlanRecord, devices: str | None) -> bool:
    """Whether a run that was planned for accelerators ran on a CPU, or the other way round."""
    return devices is not None and plan.machine.endswith("local") != devices.endswith("cpu")


def skipped_steps(folder: Path) -> list[int]:
    """Steps that the guard skipped; their loss need not be a number."""
    found = [record for _, record in read_records(folder / METRICS)]
    return [r["step"] for r in found if r.get("split") == "skipped" and is_number(r.get("step"))]


def is_number(value: Any) -> bool:
    """Whether a figure of a record is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _error(predicted: float | None, measured: float) -> float | None:
    """(predicted − measured)/measured; None if nothing was predicted."""
    return predicted / measured - 1 if predicted else None


def _kept(config: RunConfig, history: History, plan: PlanRecord) -> bool:
    """Whether the run is still the one that was planned, from its beginning."""
    now = _params(config), history.tokens(config.steps), config.objective
    planned = plan.params, plan.tokens, "next_token"
    return now == planned and not (changes(history) or history.parent)


def _params(config: RunConfig) -> int | None:
    """Parameters of the model; None for a family that is not counted here."""
    model = config.model
    if isinstance(model, ModelConfig) and model.kind == "decoder":
        return total_parameters(model)
    return None


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
    if branch := history.branch:
        found.append(f"The run is a branch of {branch['run']}, step {branch['step']:,}.")
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
