"""A plan as one self-contained HTML page, with charts as inline SVG, no scripts and no network."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from llm_jax.config.wording import counted
from llm_jax.facts.hardware import CHIPS
from llm_jax.plan import compare
from llm_jax.plan.memory import HEADROOM
from llm_jax.plan.plan import Plan
from llm_jax.plan.sentences import describe
from llm_jax.report import charts
from llm_jax.report.amounts import BYTES, ENERGY, MASS, SECONDS, digits, in_units, rounded, span
from llm_jax.report.chip_table import chip_table, side_by_side
from llm_jax.report.cost_rows import price_text, restart_text, storage_rows
from llm_jax.report.extension_rows import extension_rows
from llm_jax.report.html import bars, box, document, figure, head, listing, pair, section, table
from llm_jax.report.plan_sources import sources
from llm_jax.report.plan_table import duration, mesh_text, money, short
from llm_jax.report.source_rows import HEAD as SOURCE_HEAD
from llm_jax.report.source_rows import source_rows
from llm_jax.report.svg import svg

RESOURCES = {"math": "compute", "hbm": "memory"}
"""What a step uses: the planner's name → the page's."""
PARTS = {"params": "parameters", "grads": "gradients", "moments": "optimizer moments",
         "updates": "optimizer updates"}  # fmt: skip
LEAST_HOURS = 1 / 60
"""A run of less is not compared: starting it takes longer."""


def page(made: Plan, found: dict[str, Any]) -> str:
    """The page of a plan; `found` is its JSON object."""
    title = f"Training plan: {short(made.params)} parameters on {short(made.tokens)} tokens"
    chips = found.get("compare")
    sections = [
        head(title, f"{_given(made)} · {describe(made.model)}", _tiles(made, found)),
        box("warn", "Know before you spend", [*found["limits"], *found["warnings"]]),
        section("Side by side", side_by_side(chips)) if chips else "",
        _law_charts(made),
        _machine(made, found),
        section("Cost", _costs(made, found) + ("" if chips else _chips(made))),
        section("Sources", table(source_rows(found), SOURCE_HEAD)) if found["sources"] else "",
        section("Then longer sequences", _extension(found)) if "extend" in found else "",
        section("The run", _runtable(made, found)),
        section("Why each choice", listing(found["reasons"])),
        section("Other sizes for the same compute", _candidates(found))
        if found["candidates"]
        else "",
        section("Every constant and its source", sources(made, restart_text(found))),
    ]
    return document(title, sections)


def _given(made: Plan) -> str:
    """What the plan was asked for."""
    request = made.request
    if request.fixed:
        return "Given: parameters and tokens"
    return {
        "flops": f"Budget {request.amount:.3g} FLOPs",
        "usd": f"Budget {money(request.amount)}",
        "chip-hours": f"Budget {digits(request.amount)} chip-hours",
    }[request.budget]


def _tiles(made: Plan, found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, more) of the figures that matter most."""
    low, high = found["hours_range"]
    tiles = []
    if made.loss is not None and made.interval is not None:
        between = span(*made.interval, "{:.3f}".format)
        tiles.append(("Predicted loss", f"{made.loss:.3f}", f"nats/token, 90%: {between}"))
    tiles.append(("Time", duration(made.hours), _or_none(low, high, duration)))
    if made.usd is not None:
        per_hour = made.usd / made.hours
        tiles.append(("Cost", money(made.usd), _or_none(low * per_hour, high * per_hour, rounded)))
    tiles.append(("Machine", made.execution.machine.name, counted(made.chips, "chip")))
    tiles.append(("MFU", f"{made.mfu:.0%}", f"{made.flops:.3g} FLOPs"))
    if made.kwh is not None and made.co2_kg is not None:
        co2 = f"{in_units(made.co2_kg, MASS)} CO₂e"
        tiles.append(("Energy", in_units(made.kwh, ENERGY), co2))
    return tiles


def _or_none(low: float, high: float, form: Callable[[float], str]) -> str:
    """The 90% interval in words; where it is not known, its ends are the same."""
    return "no interval known" if low == high else f"90%: {span(low, high, form)}"


def _law_charts(made: Plan) -> str:
    if made.loss is None:
        return ""
    serving = made.request.inference_tokens
    flat = " In the grey range, the optimum's loss costs at most 1% more compute."
    return section(
        "What the budget buys",
        pair(
            figure(
                svg(
                    lambda axes: charts.surface(axes, made),
                    f"Predicted loss over parameters and tokens; {made.loss:.3f} nats per token at "
                    f"{short(made.law_params)} parameters and {short(made.tokens)} tokens.",
                ),
                "Predicted loss over model size and data. The dashed line has the compute of this "
                "budget. The orange line has the best point of each budget, the dot is this plan.",
            ),
            figure(
                svg(
                    lambda axes: charts.isoflop(axes, made),
                    "Predicted loss against parameters at the same compute, with its 90% interval.",
                ),
                "Loss against size at the same compute." + ("" if serving else flat),
            ),
        ),
    )


def _machine(made: Plan, found: dict[str, Any]) -> str:
    """How a step uses its devices: roofline, time by resource, memory by part."""
    time, memory = made.execution.time, dict(found["memory_bytes"])
    capacity, total = memory.pop("capacity"), memory.pop("total")
    resources = found["roofline_seconds"]
    longest = max(time.high, *resources.values())
    parts = [
        (RESOURCES.get(name, name), value / longest, in_units(value, SECONDS))
        for name, value in resources.items()
        if value > 0
    ]
    parts.append(("step", time.expected / longest, in_units(time.expected, SECONDS)))
    held = [
        (PARTS.get(name, name.replace("_", " ")), value / capacity, in_units(value, BYTES))
        for name, value in memory.items()
        if value > 0
    ]
    held += [
        ("together", total / capacity, in_units(total, BYTES)),
        ("kept free", HEADROOM, in_units(HEADROOM * capacity, BYTES)),
    ]
    step = _or_none(time.low, time.high, lambda value: in_units(value, SECONDS))
    return section(
        "How it runs",
        pair(
            figure(
                svg(
                    lambda axes: charts.roofline(axes, made),
                    f"Roofline of one device: the step is bound by {time.bound}.",
                ),
                f"Roofline of one device. The step is bound by {time.bound}.",
            ),
            "<div>"
            + figure(
                bars(parts),
                "Time that each resource needs per step, some of it at once, and the step "
                f"({step}).",
            )
            + '<div style="height:20px"></div>'
            + figure(
                bars(held),
                f"Estimated memory of one device, of {in_units(capacity, BYTES)}. "
                "`llm-jax preflight` measures it with the real compiler.",
            )
            + "</div>",
        ),
    )


def _costs(made: Plan, found: dict[str, Any]) -> str:
    request, price = made.request, made.request.price
    rows = [
        ["Chips", f"{made.chips:,}", made.execution.machine.name],
        ["Wall time", duration(made.hours), f"{counted(made.steps, 'step')} of "
         f"{in_units(made.execution.time.expected, SECONDS)}, and {made.overhead:.2%} "
         f"for restarts ({_or_none(*made.hours_range, duration)})"],
        ["Chip-hours", digits(made.chip_hours), "chips × wall time"],
    ]  # fmt: skip
    if price is not None and made.usd is not None:
        rows += [
            ["Price", f"{money(price)}", f"per chip-hour: {price_text(found)}"],
            ["Training", money(made.usd), "chip-hours × price"],
        ]
    if made.kwh is not None and made.co2_kg is not None:
        rows += [
            ["Energy", in_units(made.kwh, ENERGY), f"chip-hours × watts × PUE {request.pue}"],
            ["CO₂e", in_units(made.co2_kg, MASS), f"energy × {request.carbon} kg/kWh"],
        ]
    rows += storage_rows(found)
    return table(rows, ["", "Amount #", "How"])


def _chips(made: Plan) -> str:
    """The same run on the other chips of the table, without those where it takes seconds."""
    own = [] if made.request.chip.name in CHIPS else [made.request.chip]
    rows = [row for row in compare.compared(made, [*own, *CHIPS.values()]) if not row["refused"]]
    long = [row for row in rows if row["hours"] >= LEAST_HOURS]
    if len(long) < 2:
        return ""
    mine = next((i for i, row in enumerate(long) if row["chip"] == made.request.chip.name), None)
    left_out = [row["machine"] for row in rows if row not in long]
    note = f"Left out, since the run takes less than a minute there: {', '.join(left_out)}."
    shown = f'<p class="soft">{escape(note)}</p>' if left_out else ""
    return f"<h3>The same run on other chips</h3>{chip_table(long, mine)}{shown}"


def _extension(found: dict[str, Any]) -> str:
    return table(extension_rows(found), ["", ""]) + listing(found["extend"]["reasons"])


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
        ["Memory", f"{in_units(memory['total'], BYTES)} of {in_units(memory['capacity'], BYTES)} "
         "per device"],
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
                digits(point["tokens"] / point["params"], 3),
                "–" if loss is None else f"{loss:.3f}",
                "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
                "–" if extra is None else f"{extra:.0%}",
            ]
        )
    head = ["Parameters #", "Tokens #", "Tokens per parameter #", "Loss #", "90% interval #",
            "Compute wasted #"]  # fmt: skip
    return table(rows, head, len(rows) // 2 if len(rows) == 9 else None)
