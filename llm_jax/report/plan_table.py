"""A plan as text for a terminal, from its JSON object."""

from __future__ import annotations

from typing import Any

from llm_jax.config.wording import counted

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def short(value: float) -> str:
    """Three digits and a unit: `7.01B`, `1.4T`, `350M`."""
    for size, letter in UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}" if value < 1000 * size else f"{value:.3g}"
    return f"{value:.3g}"


def gigabytes(value: float) -> str:
    """Bytes in GB (10⁹ bytes)."""
    return f"{value / 1e9:.3g} GB"


def money(value: float | None) -> str:
    """US dollars; `not known` for None."""
    if value is None:
        return "not known"
    if 0 < value < 0.01:
        return f"${value:.1g}"
    return f"${value:,.0f}" if value >= 100 else f"${value:.2f}"


def duration(hours: float) -> str:
    """Hours in a readable unit: `36 s`, `12 min`, `5.2 h`, `12.3 days`."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.1f} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} days"


def loss_text(loss: float | None, interval: Any) -> str:
    """A predicted loss and its 90% interval."""
    if loss is None:
        return "not predicted"
    return f"{loss:.3f} nats/token (90%: {interval[0]:.3f} to {interval[1]:.3f})"


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
    return lines + refused


def _row(machine: str, chips: str, time: str, span: str, mfu: str, cost: str, bound: str) -> str:
    return f"  {machine:<18}{chips:>7}{time:>12}  {span:<24}{mfu:>4}{cost:>14}   {bound}"


def plan_table(result: dict[str, Any]) -> str:
    """The plan, as lines of text."""
    r, model, mesh, memory = result, result["model"], result["mesh"], result["memory_bytes"]
    low, high = r["step_seconds"]
    energy = "not known" if r["kwh"] is None else f"{r['kwh']:,.4g} kWh, {r['co2_kg']:,.4g} kg CO2e"
    active = f" ({short(r['active_params'])} active)" if model["moe"] else ""
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
        ("cost", money(r["usd"])),
        ("energy", energy),
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
    if "compare" in r:
        lines += ["", *compare_lines(r["compare"])]
    lines += ["", "Why:", *(f"  - {reason}" for reason in r["reasons"])]
    if r["warnings"]:
        lines += ["", "Know before you spend:", *(f"  - {text}" for text in r["warnings"])]
    if "written" in r:
        run, prediction = r["written"], r["prediction"]
        lines += ["", f"Wrote {run} and {prediction}. Next: llm-jax train {run}"]
    if "report" in r:
        lines += ["", f"Wrote {r['report']}."]
    return "\n".join(lines)
