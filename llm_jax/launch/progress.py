"""How far a run is, from what its trainer leaves in the output folder: what `status` shows."""

from __future__ import annotations

import json
import math
from typing import Any

from llm_jax.config import ConfigError, RunConfig, from_dict
from llm_jax.config.wording import counted
from llm_jax.launch.folder import Folder
from llm_jax.launch.records import read_json


def progress(folder: Folder) -> dict[str, Any] | None:
    """`step, steps, loss` (training), `validation_loss, tokens_per_second, mfu, goodput`, and
    `hours_left, usd_left`, each None where it cannot be known. None before the first figures.

    Time left is at the present speed and the run's goodput; money at the price that was planned.
    """
    try:
        run = from_dict(read_json(folder, "run.json"), RunConfig)
    except ConfigError:
        return None
    records = _records(folder)
    trained = [r for r in records if r["split"] == "train"]
    if not trained:
        return None
    last = trained[-1]
    rate, goodput = _figure(last, "tokens_per_second"), _figure(last, "goodput")
    tokens_left = run.tokens(run.steps) - run.tokens(last["step"])
    useful = (rate or 0.0) * (goodput or 1.0)
    hours = tokens_left / useful / 3600 if useful > 0 else None
    price = run.plan.usd / run.plan.hours if run.plan and run.plan.usd else None
    validated = [_figure(r, "loss") for r in records if r["split"] == "validation"]
    return {
        "step": last["step"],
        "steps": run.steps,
        "loss": _figure(last, "loss"),
        "validation_loss": validated[-1] if validated else None,
        "tokens_per_second": rate,
        "mfu": _figure(last, "mfu"),
        "goodput": goodput,
        "skipped": sum(r["split"] == "skipped" for r in records),
        "hours_left": hours,
        "usd_left": None if price is None or hours is None else price * hours,
    }


def _figure(record: dict[str, Any], name: str) -> float | None:
    """The finite number of that name, None if there is none."""
    value = record.get(name)
    known = isinstance(value, int | float) and math.isfinite(value)
    return value if known else None


def _records(folder: Folder) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; one that is just being written is left out."""
    lines = (folder.read("metrics.jsonl") or b"").decode(errors="replace").split("\n")[:-1]
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def progress_line(now: dict[str, Any]) -> str:
    """One line for people."""
    forms = {
        "loss": "loss {:.4f}",
        "validation_loss": "validation {:.4f}",
        "tokens_per_second": "{:,.0f} tokens/s",
        "mfu": "MFU {:.0%}",
        "goodput": "goodput {:.0%}",
        "hours_left": "{:.2f} h left",
        "usd_left": "about {:,.0f} USD left to spend",
    }
    known = {name: form.format(now[name]) for name, form in forms.items() if now[name] is not None}
    if now["step"] >= now["steps"]:
        known = {name: text for name, text in known.items() if not name.endswith("_left")}
    skipped = [f"{counted(now['skipped'], 'step')} skipped"] if now["skipped"] else []
    return "  ".join([f"step {now['step']}/{now['steps']}", *known.values(), *skipped])
