"""How far a run is, from what its trainer leaves in the output folder: what `status` shows."""

from __future__ import annotations

import json
from typing import Any

from llm_jax.config import ConfigError, RunConfig, from_dict
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
    tokens_left = run.tokens(run.steps) - run.tokens(last["step"])
    useful = last["tokens_per_second"] * (last.get("goodput") or 1.0)
    hours = tokens_left / useful / 3600
    price = run.plan.usd / run.plan.hours if run.plan and run.plan.usd else None
    validated = [r["loss"] for r in records if r["split"] == "validation"]
    return {
        "step": last["step"],
        "steps": run.steps,
        "loss": last["loss"],
        "validation_loss": validated[-1] if validated else None,
        "tokens_per_second": last["tokens_per_second"],
        "mfu": last["mfu"],
        "goodput": last.get("goodput"),
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
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def progress_line(now: dict[str, Any]) -> str:
    """One line for people."""
    parts = [f"step {now['step']}/{now['steps']}", f"loss {now['loss']:.4f}"]
    if now["validation_loss"] is not None:
        parts.append(f"validation {now['validation_loss']:.4f}")
    parts += [f"{now['tokens_per_second']:,.0f} tokens/s", f"MFU {now['mfu']:.0%}"]
    if now["goodput"] is not None:
        parts.append(f"goodput {now['goodput']:.0%}")
    if now["skipped"]:
        parts.append(f"{now['skipped']} steps skipped")
    if now["step"] < now["steps"]:
        parts.append(f"{now['hours_left']:.2f} h left")
        if now["usd_left"] is not None:
            parts.append(f"about {now['usd_left']:,.0f} USD left to spend")
    return "  ".join(parts)
