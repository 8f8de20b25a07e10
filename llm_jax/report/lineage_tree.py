"""A lineage drawn as a tree of lines: what a run read in which stage, and from where it began."""

from __future__ import annotations

from typing import Any

from llm_jax.runs.lineage import UNKNOWN, Lineage, ancestors, sources_read


def tree(lineage: Lineage) -> list[str]:
    """The lines of the tree, the newest run first."""
    whole = sum(one["tokens"] for one in ancestors(lineage))
    own = f"{lineage['tokens']:,} tokens"
    of_all = "" if whole == lineage["tokens"] else f", {whole:,} with those of its ancestors"
    return [f"{lineage['run']}, step {lineage['step']:,}: {own}{of_all}", *_below(lineage)]


def _below(lineage: Lineage) -> list[str]:
    lines = []
    branches = {branch["step"]: branch for branch in lineage["branches"]}
    for stage in lineage["stages"]:
        if branch := branches.pop(stage["first"], None):
            lines.append(f"├─ branch of {branch['name']} at step {branch['step']:,}")
        lines += _stage(stage, lineage)
    lines += [f"├─ branch of {one['name']} at step {step:,}" for step, one in branches.items()]
    began = lineage.get("began")
    if not began:
        return [*lines, "└─ began with random weights"]
    if began["kind"] == "model":
        licence = began.get("licence") or UNKNOWN
        return [*lines, f"└─ began with the model {began['name']} (licence: {licence})"]
    lines.append(f"└─ began with the weights of {began['name']}, step {began['step']:,}")
    parent = began.get("lineage")
    below = _below(parent) if parent else ["└─ nothing is known of what it had read"]
    return [*lines, *(f"   {line}" for line in below)]


def _stage(stage: dict[str, Any], lineage: Lineage) -> list[str]:
    total = sum(read["tokens"] for read in stage["read"]) or 1
    lines = [
        f"├─ steps {stage['first'] + 1:,} to {stage['end']:,} of {stage['run']}, stage "
        f"{stage['stage']}: {total:,} tokens"
    ]
    for read in stage["read"]:
        text = lineage["texts"][read["text"]]
        lines.append(
            f"│    {text['name']}: {read['tokens'] / total:.1%}, {read['tokens']:,} tokens, "
            f"{read['tokens'] / max(text['tokens'], 1):.3g} times"
        )
        lines += [
            f"│      {source['name']} (licence: {source['licence']}, {source['class']})"
            for source in text["sources"]
        ]
    return lines


def sources(lineage: Lineage) -> dict[str, dict[str, Any]]:
    """Name of each source of text → `tokens` that were read of it by the run and its ancestors,
    `licences`, `classes`, and tokens `read_by` each run."""
    found: dict[str, dict[str, Any]] = {}
    for one in sources_read(lineage):
        empty: dict[str, Any] = {"tokens": 0, "licences": [], "classes": [], "read_by": {}}
        held = found.setdefault(one.source, empty)
        held["tokens"] += one.tokens
        held["licences"] = sorted({*held["licences"], one.licence})
        held["classes"] = sorted({*held["classes"], one.class_})
        held["read_by"][one.run] = held["read_by"].get(one.run, 0) + one.tokens
    return found


def parents(lineage: Lineage) -> list[dict[str, Any]]:
    """What it began with, what that began with, and so on: `kind`, `run`, `name`, `step`."""
    began = [one["began"] for one in ancestors(lineage) if one.get("began")]
    names = ("kind", "run", "name", "step", "licence")
    return [{name: one.get(name) for name in names} for one in began]
