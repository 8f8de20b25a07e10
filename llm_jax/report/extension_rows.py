"""The second stage of a plan, as rows of texts, from its JSON object."""

from __future__ import annotations

from typing import Any

from llm_jax.config.wording import counted
from llm_jax.report.wording import duration, gigabytes, money, short


def extension_rows(r: dict[str, Any]) -> list[list[str]]:
    """(name, value) of the second stage, and of both stages together."""
    stage = r["extend"]
    both, (low, high) = stage["together"], stage["hours_range"]
    axes = " × ".join(f"{name} {size}" for name, size in stage["mesh"].items() if size > 1)
    return [
        ["Stage 2", f"{short(stage['tokens'])} tokens in sequences of {stage['seq_len']:,}, "
         f"{counted(stage['steps'], 'step')} of {stage['batch_tokens']:,} tokens, learning rate "
         f"{stage['learning_rate']:.3g}"],
        ["Machine", f"{stage['accelerator']} ({counted(stage['chips'], 'chip')}), mesh "
         f"{axes or 'of one device'}, remat {stage['remat']}, "
         f"{gigabytes(stage['memory_bytes']['total'])} per device, MFU {stage['mfu']:.1%}"],
        ["Time", f"{duration(stage['hours'])} (90%: {duration(low)} to {duration(high)}), "
         f"{stage['chip_hours']:,.4g} chip-hours"],
        ["Cost", money(stage["usd"])],
        ["Both", f"{duration(both['hours'])}, {both['chip_hours']:,.4g} chip-hours, "
         f"{money(both['usd'])}"],
    ]  # fmt: skip


def extension_lines(r: dict[str, Any]) -> list[str]:
    """The rows as lines of text; empty if there is no second stage."""
    if "extend" not in r:
        return []
    rows = [f"  {name.lower():<10}{value}" for name, value in extension_rows(r)]
    return [
        "",
        "Then longer sequences:",
        *rows,
        *(f"  - {text}" for text in r["extend"]["reasons"]),
    ]
