"""A plan as one self-contained HTML page, with charts as inline SVG, no scripts and no network."""

from __future__ import annotations

import dataclasses
from html import escape
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.facts.hardware import CHIPS
from llm_jax.plan.compare import on_chip
from llm_jax.plan.plan import Plan
from llm_jax.plan.sentences import describe
from llm_jax.report import charts
from llm_jax.report.html import document, figure, listing, section, table
from llm_jax.report.plan_table import duration, gigabytes, mesh_text, money, short

UNITS = {
    "bf16_flops": (1e12, "TFLOP/s"),
    "f32_flops": (1e12, "TFLOP/s"),
    "int8_flops": (1e12, "TOP/s"),
    "fp8_flops": (1e12, "TFLOP/s"),
    "hbm_bytes": (1e9, "GB"),
    "hbm_bandwidth": (1e9, "GB/s"),
    "ici_bandwidth": (1e9, "GB/s"),
    "dcn_bandwidth": (1e9, "GB/s"),
    "pcie_bandwidth": (1e9, "GB/s"),
    "usd_per_hour": (1, "$ per chip-hour"),
    "watts": (1, "W"),
}


def page(made: Plan, found: dict[str, Any]) -> str:
    """The page of a plan; `found` is its JSON object."""
    title = f"Training plan: {short(made.params)} parameters on {short(made.tokens)} tokens"
    sections = [
        _header(made, found, title),
        _warnings([*found["limits"], *found["warnings"]]),
        _law_charts(made),
        _machine_charts(made),
        section("Cost", _costs(made) + _chips(made)),
        section("The run", _runtable(made, found)),
        section("Why each choice", listing(found["reasons"])),
        section("Other sizes for the same compute", _candidates(found)),
        section("Every constant and its source", _sources(made)),
    ]
    return document(title, sections)


def _header(made: Plan, found: dict[str, Any], title: str) -> str:
    request = made.request
    amount = {
        "flops": f"{request.amount:.3g} FLOPs",
        "usd": f"${request.amount:,.0f}",
        "chip-hours": f"{request.amount:,.4g} chip-hours",
    }[request.budget]
    loss, interval = found["loss"], found["loss_interval"]
    low, high = found["hours_range"]
    tiles = [
        ("Predicted loss", "–" if loss is None else f"{loss:.3f}",
         "see below" if loss is None else
         f"nats/token, 90%: {interval[0]:.2f}–{interval[1]:.2f}"),
        ("Time", duration(made.hours), f"{duration(low)} to {duration(high)}"),
        ("Cost", money(made.usd), "no price known" if request.price is None
         else f"at ${request.price:.2f} per chip-hour"),
        ("Chips", f"{made.chips:,}", f"{made.execution.machine.name}"),
        ("MFU", f"{made.mfu:.0%}", f"{made.flops:.2e} FLOPs"),
        ("Energy", "–" if made.kwh is None else f"{made.kwh / 1000:,.3g} MWh",
         "power not published" if made.co2_kg is None else f"{made.co2_kg / 1000:,.3g} t CO₂e"),
    ]  # fmt: skip
    boxes = "".join(
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<span>{escape(more)}</span></div>"
        for name, value, more in tiles
    )
    return (
        f"<header><h1>{escape(title)}</h1><p class=soft>Budget {escape(amount)} · "
        f"{escape(describe(made.model))}</p></header><div class=tiles>{boxes}</div>"
    )


def _warnings(items: list[str]) -> str:
    return (
        f'<div class="warn"><h3>Know before you spend</h3>{listing(items)}</div>' if items else ""
    )


def _law_charts(made: Plan) -> str:
    if made.loss is None:
        return ""
    return section(
        "What the budget buys",
        '<div class="pair">'
        + figure(
            charts.svg(charts.surface, made),
            "Predicted loss over model size and data. The dashed line has the compute of this "
            "budget. The orange line has the best point of each budget.",
        )
        + figure(
            charts.svg(charts.isoflop, made),
            "Loss against size at the same compute. In the grey range, the optimum's loss costs at "
            "most 1% more compute.",
        )
        + "</div>",
    )


def _machine_charts(made: Plan) -> str:
    return section(
        "How it runs",
        '<div class="pair">'
        + figure(
            charts.svg(charts.roofline, made),
            f"Roofline of one device. The step is bound by {made.execution.time.bound}.",
        )
        + figure(
            charts.svg(charts.seconds, made),
            "Seconds per step that each resource needs. The grey band is the step time, a 90% "
            "prediction interval from published runs.",
        )
        + '</div><div style="height:20px"></div>'
        + figure(
            charts.svg(charts.memory, made, (12.4, 2.3)),
            "Estimated memory of one device, by part. `llm-jax preflight` measures it with the "
            "real compiler.",
        ),
    )


def _costs(made: Plan) -> str:
    request = made.request
    price = request.usd_per_hour or request.chip.usd_per_hour
    rows = [
        ["Chips", f"{made.chips:,}", made.execution.machine.name],
        ["Wall time", duration(made.hours), f"{counted(made.steps, 'step')} of "
         f"{made.execution.time.expected:.3g} s, and {request.restart_overhead:.0%} for restarts"],
        ["Chip-hours", f"{made.chip_hours:,.4g}", "chips × wall time"],
        ["Price per chip-hour", money(price), "given" if request.usd_per_hour
         else request.chip.sources.get("usd_per_hour", "none known")],
        ["Spot discount", f"{request.spot_discount:.0%}", "given"],
        ["Cost of training", money(made.usd), "chip-hours × price × (1 − discount)"],
        ["Energy", "not known" if made.kwh is None else f"{made.kwh:,.0f} kWh",
         f"chip-hours × watts × PUE {request.pue}"],
        ["CO₂e", "not known" if made.co2_kg is None else f"{made.co2_kg:,.0f} kg",
         f"energy × {request.carbon} kg/kWh"],
    ]  # fmt: skip
    return table(rows, ["", "Amount #", "How"])


def _chips(made: Plan) -> str:
    """The same run on the other chips of the table."""
    rows: list[list[str]] = []
    chosen = None
    for chip in [
        *CHIPS.values(),
        *([made.request.chip] if made.request.chip.kind == "cpu" else []),
    ]:
        try:
            other = on_chip(made, chip)
        except UserError:
            continue
        if other is made:
            chosen = len(rows)
        energy = "–" if other.kwh is None else f"{other.kwh / 1000:,.3g} MWh"
        rows.append(
            [other.execution.machine.name, f"{other.chips:,}", duration(other.hours),
             f"{other.mfu:.0%}", f"{other.chip_hours:,.4g}", money(other.usd), energy]
        )  # fmt: skip
    head = ["Machine", "Chips #", "Time #", "MFU #", "Chip-hours #", "Cost #", "Energy #"]
    return '<h3 style="margin-top:22px">The same run on other chips</h3>' + table(
        rows, head, chosen
    )


def _runtable(made: Plan, found: dict[str, Any]) -> str:
    run, mesh, memory = made.execution, found["mesh"], found["memory_bytes"]
    epochs = "" if made.epochs is None else f", {made.epochs:.2f} epochs"
    parts = ", ".join(f"{k} {short(v)}" for k, v in found["params_by_part"].items() if v)
    rows = [
        ["Model", describe(made.model)],
        ["Parameters", f"{made.params:,} ({parts})"],
        ["Tokens", f"{made.tokens:,} ({found['tokens_per_param']:.1f} per parameter{epochs})"],
        ["Compute", f"{made.flops:.4g} FLOPs exact; 6ND is {found['flops_6nd']:.4g}"],
        ["Batch", f"{made.batch_tokens:,} tokens: {counted(run.batch_sequences, 'sequence')} of "
         f"{made.seq_len:,}, {counted(run.layout.accumulate, 'micro-batch')}"],
        ["Steps", f"{made.steps:,}"],
        ["Peak learning rate", f"{made.hyper.learning_rate:.3g} ({made.hyper.source})"],
        ["Machine", f"{mesh['accelerator']}, topology {mesh['topology']}, "
         f"{counted(mesh['hosts'], 'host')}"],
        ["Mesh", f"{mesh_text(mesh)}; "
         f"remat {run.layout.remat}; {run.layout.dtype}"],
        ["Memory", f"{gigabytes(memory['total'])} of {gigabytes(memory['capacity'])} per device"],
        ["Utilisation", f"MFU {made.mfu:.1%}, HFU {made.hfu:.1%}"],
    ]  # fmt: skip
    return table(rows, ["", ""])


def _candidates(found: dict[str, Any]) -> str:
    rows = []
    for point in found["candidates"]:
        loss, interval, extra = point["loss"], point["interval"], point["extra_flops"]
        rows.append(
            [
                short(point["params"]),
                short(point["tokens"]),
                f"{point['tokens'] / point['params']:.1f}",
                "–" if loss is None else f"{loss:.3f}",
                "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
                "–" if extra is None else f"{extra:.0%}",
            ]
        )
    head = ["Parameters #", "Tokens #", "Tokens per parameter #", "Loss #", "90% interval #",
            "Compute wasted #"]  # fmt: skip
    return table(rows, head, len(rows) // 2 if len(rows) == 9 else None)


def _sources(made: Plan) -> str:
    request, chip = made.request, made.request.chip
    rows = []
    for item in dataclasses.fields(chip):
        value = getattr(chip, item.name)
        if isinstance(value, int | float) and item.name in chip.sources:
            scale, unit = UNITS.get(item.name, (1, ""))
            name = f"{chip.name}: {item.name.replace('_', ' ')}"
            rows.append([name, f"{value / scale:,.5g} {unit}".strip(), chip.sources[item.name]])
    law = made.law
    constants = {
        key: value
        for key, value in vars(getattr(law, "law", law)).items()
        if isinstance(value, float) and key not in ("half_width_nats", "residual")
    }
    rows += [
        [f"law {law.name}: {key}", f"{value:.6g}", law.source] for key, value in constants.items()
    ]
    rows += [
        ["batch and learning rate", request.rule or "by size", made.hyper.source],
        ["restart overhead", f"{request.restart_overhead:.0%}",
         "assumed; Llama 3 (2024) reports less than 10%"],
        ["PUE", f"{request.pue}", "Google's fleet, environmental report 2023"],
        ["carbon", f"{request.carbon} kg CO₂e/kWh", "world average of 2023, Ember"],
    ]  # fmt: skip
    return table(rows, ["Constant", "Value #", "Source"])
