"""How far a run is, from what its trainer leaves in the output folder: what `status` shows."""

from __future__ import annotations

import math
from typing import Any

from llm_jax.config import ConfigError, RunConfig, UserError, from_dict, parse_json
from llm_jax.config.wording import counted
from llm_jax.launch.folder import Folder
from llm_jax.launch.records import read_json
from llm_jax.runs.plan_file import PLAN, plan_of

FIGURES = {
    "train": ("step", "loss", "tokens_per_second"),
    "validation": ("step", "loss"),
}
"""What every record of a split has."""
LEAST = 1e-9
"""Lowest speed, in tokens per second, that the time left is computed from."""


def progress(folder: Folder) -> dict[str, Any] | None:
    """`step, steps, loss` (training), `validation_loss, tokens_per_second, mfu, goodput`, and
    `hours_left, usd_left`, each None where it cannot be known. None before the first figures.

    Time left is at the present speed and the run's goodput; money at the price that was planned.
    """
    try:
        raw = read_json(folder, "run.json")
        run, plan = from_dict(raw, RunConfig), plan_of(raw, read_json(folder, PLAN))
    except ConfigError:
        return None
    records = _records(folder)
    trained = [r for r in records if r["split"] == "train"]
    if not trained:
        return None
    last = trained[-1]
    tokens_left = run.tokens(run.steps) - run.tokens(last["step"])
    useful = max(last["tokens_per_second"], LEAST) * (_figure(last, "goodput") or 1.0)
    hours = tokens_left / useful / 3600
    price = plan.usd / plan.hours if plan and plan.usd else None
    validated = [r["loss"] for r in records if r["split"] == "validation"]
    return {
        "step": last["step"],
        "steps": run.steps,
        "loss": last["loss"],
        "validation_loss": validated[-1] if validated else None,
        "tokens_per_second": last["tokens_per_second"],
        "mfu": _figure(last, "mfu"),
        "goodput": _figure(last, "goodput"),
        "skipped": sum(r["split"] == "skipped" for r in records),
        "hours_left": hours,
        "usd_left": None if price is None else price * hours,
    }


def _records(folder: Folder) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; one that is just being written is left out."""
    lines = (folder.read("metrics.jsonl") or b"").decode(errors="replace").split("\n")[:-1]
    found = []
    for line in lines:
        try:
            found.append(_record(line))
        except UserError:
            break
    return found


def _record(line: str) -> dict[str, Any]:
    """Raises `UserError` unless it has the figures that are shown."""
    record = parse_json(line, "the line")
    if not isinstance(record, dict) or not isinstance(record.get("split"), str):
        raise UserError("The line is not a record of a split.")
    for name in FIGURES.get(record["split"], ("step",)):
        if _figure(record, name) is None:
            raise UserError(f"{name} is not a finite number.")
    return record


def _figure(record: dict[str, Any], name: str) -> float | None:
    """The finite number of that name, None if there is none."""
    value = record.get(name)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def progress_line(now: dict[str, Any]) -> str:
    """One line for people."""
    parts = [f"step {now['step']}/{now['steps']}", f"loss {now['loss']:.4f}"]
    if now["validation_loss"] is not None:
        parts.append(f"validation {now['validation_loss']:.4f}")
    parts.append(f"{now['tokens_per_second']:,.0f} tokens/s")
    if now["mfu"] is not None:
        parts.append(f"MFU {now['mfu']:.0%}")
    if now["goodput"] is not None:
        parts.append(f"goodput {now['goodput']:.0%}")
    if now["skipped"]:
        parts.append(f"{counted(now['skipped'], 'step')} skipped")
    if now["step"] < now["steps"]:
        parts.append(f"{now['hours_left']:.2f} h left")
        if now["usd_left"] is not None:
            parts.append(f"about {now['usd_left']:,.0f} USD left to spend")
    return "  ".join(parts)
