"""A plan as text for a terminal, from its JSON object."""

from __future__ import annotations

from typing import Any

from llm_jax.config.wording import counted
from llm_jax.report.cost_rows import price_text, restart_text, storage_rows
from llm_jax.report.extension_rows import extension_lines
from llm_jax.report.source_rows import source_lines
from llm_jax.report.wording import duration, gigabytes, loss_text, money, short

__all__ = ["compare_lines", "duration", "gigabytes", "law_table", "money", "plan_table", "short"]


def mesh_text(mesh: dict[str, Any]) -> str:
    """The axes of a mesh and their sizes; of the less usual ones, those that split something."""
    sizes = {axis: mesh[axis] for axis in ("data", "fsdp", "tensor")}
    sizes |= {axis: mesh[axis] for axis in ("expert", "context", "pipeline") if mesh[axis] > 1}
    return " × ".join(f"{axis} {size}" for axis, size in sizes.items())


def law_table(result: dict[str, Any]) -> str:
    """The optimum of a law, as lines of text."""
    best = result["optimum"]
    lines = [
        f"law         {result['law']['name']}: {result['law']['source']}",
        f"parameters  {short(best['params'])} ({result['law']['counts']})",
        f"tokens      {short(best['tokens'])} ({best['tokens'] / best['params']:.1f} per "
        "parameter)",
        f"loss        {loss_text(best['loss'], result['loss_interval'])}",
    ]
    return "\n".join([*lines, *(f"warning     {text}" for text in result["warnings"])])


def compare_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The same run on several chips, a line each; the cheapest is marked."""
    columns = ("machine", "chips", "time", "90%", "MFU", "cost", "bound by")
    lines = ["The same run on other chips:", _row(*columns)]
    refused = []
    for row in rows:
        if row["refused"]:
            refused.append(f"  {row['chip']}: {row['refused']}")
            continue
        low, high = (duration(hours) for hours in row["hours_range"])
        line = _row(
            row["machine"], f"{row['chips']:,}", duration(row["hours"]), f"{low} to {high}",
            f"{row['mfu']:.0%}", money(row["usd"]), row["bound"],
        )  # fmt: skip
        lines.append(line + ("  (cheapest)" if row["cheapest"] else ""))
    known = [row for row in rows if row.get("usd") is not None]
    prices = [f"  price of {row['chip']}: {price_text(row)}" for row in known]
    return lines + prices + refused


def _row(machine: str, chips: str, time: str, span: str, mfu: str, cost: str, bound: str) -> str:
    return f"  {machine:<18}{chips:>7}{time:>12}  {span:<24}{mfu:>4}{cost:>14}   {bound}"


def _start(r: dict[str, Any]) -> str:
    """The commands that train the written run."""
    train, given = f"llm-jax train {r['written']}", r["given"]
    if not (given and given["weights"]):
        return train
    if given["run"]:
        return f"{train} --init {given['name']}"
    return f"llm-jax import {given['name']} runs/imported, then {train} --init runs/imported"


def plan_table(result: dict[str, Any]) -> str:
    """The plan, as lines of text."""
    r, model, mesh, memory = result, result["model"], result["mesh"], result["memory_bytes"]
    low, high = r["step_seconds"]
    energy = "not known" if r["kwh"] is None else f"{r['kwh']:,.4g} kWh, {r['co2_kg']:,.4g} kg CO2e"
    active = f" ({short(r['active_params'])} active)" if model["moe"] else ""
    lost = r["restarts"]["overhead"]
    restarts = [("restarts", f"{lost:.2%} more time: {restart_text(r)}")] if lost else []
    rows = [
        ("model", f"{short(r['params'])} parameters{active}: "
         f"{counted(model['num_layers'], 'layer')}, width {model['d_model']}, "
         f"{model['num_heads']}/{model['num_kv_heads']} heads of "
         f"{model['head_dim']}, ffn {model['d_ff']}, vocabulary {model['vocab_size']:,}"),
        ("data", f"{short(r['tokens'])} tokens, {r['tokens_per_param']:.1f} per parameter"
         + ("" if r["epochs"] is None else f", {r['epochs']:.2f} epochs")),
        ("compute", f"{r['flops']:.3g} FLOPs exact ({r['flops_6nd']:.3g} as 6ND)"),
        ("loss", loss_text(r["loss"], r["loss_interval"])),
        ("training", f"{counted(r['steps'], 'step')} of {r['batch_tokens']:,} tokens, sequences of "
         f"{r['seq_len']:,}, peak learning rate {r['learning_rate']:.3g}"),
        ("machine", f"{mesh['accelerator']} ({mesh['topology']}, "
         f"{counted(r['chips'], 'chip')}), mesh {mesh_text(mesh)}, remat {r['remat']}, "
         f"{counted(r['accumulate'], 'micro-batch')}"),
        ("memory", f"{gigabytes(memory['total'])} of {gigabytes(memory['capacity'])} per device"),
        ("speed", f"{low:.3g} to {high:.3g} s per step (90%), bound by {r['bound']}; "
         f"MFU {r['mfu']:.1%}, HFU {r['hfu']:.1%}"),
        ("time", f"{duration(r['hours'])} (90%: {duration(r['hours_range'][0])} to "
         f"{duration(r['hours_range'][1])}), {r['chip_hours']:,.4g} chip-hours"),
        ("cost", f"{money(r['usd'])} ({price_text(r)})"),
        ("energy", energy),
        *restarts,
        *((name.lower(), f"{amount}: {how}") for name, amount, how in storage_rows(r)),
    ]  # fmt: skip
    lines = [*(f"{sentence}\n" for sentence in r["limits"])]
    lines += [f"{name:<10}{value}" for name, value in rows]
    if any(point["loss"] is not None for point in r["candidates"]):
        lines += [
            "",
            "Other sizes for the same compute:",
            "  parameters  tokens   loss    90% interval",
        ]
        for point in r["candidates"]:
            size = f"  {short(point['params']):>10}  {short(point['tokens']):>6}"
            if point["loss"] is None:
                lines.append(f"{size}  not predicted")
                continue
            low, high = point["interval"]
            lines.append(f"{size}  {point['loss']:.3f}   {low:.3f} to {high:.3f}")
    lines += [*source_lines(r), *extension_lines(r)]
    if "compare" in r:
        lines += ["", *compare_lines(r["compare"])]
    lines += ["", "Why:", *(f"  - {reason}" for reason in r["reasons"])]
    if r["warnings"]:
        lines += ["", "Know before you spend:", *(f"  - {text}" for text in r["warnings"])]
    if "written" in r:
        run, prediction = r["written"], r["prediction"]
        lines += ["", f"Wrote {run} and {prediction}. Next: {_start(r)}"]
        if second := r.get("extend", {}).get("written"):
            lines += [f"Wrote {second}. After it: llm-jax train {second} --init {r['out']}"]
    if "report" in r:
        lines += ["", f"Wrote {r['report']}."]
    return "\n".join(lines)
