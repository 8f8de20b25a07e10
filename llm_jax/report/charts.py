"""The charts of a plan's report, as inline SVG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from llm_jax.facts.calibration import calibration
from llm_jax.facts.hardware import Chip
from llm_jax.plan.isoflop import flat_range, tokens_at
from llm_jax.plan.memory import HEADROOM
from llm_jax.plan.output import compute_flops
from llm_jax.plan.plan import Plan
from llm_jax.plan.sense import bounded

INK, SOFT, ACCENT, BAND = "#1f2933", "#9aa5b1", "#d9480f", "#c5d9ee"
PARTS = {
    "params": ("#1c4e80", "parameters"),
    "grads": ("#3a7ca5", "gradients"),
    "moments": ("#81b1d0", "optimizer moments"),
    "updates": ("#b7cfe0", "optimizer updates"),
    "gathered_weights": ("#6c757d", "gathered weights"),
    "activations": ("#e08e45", "activations"),
    "logits": ("#f2c078", "logits"),
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llm_jax",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def svg(draw, plan: Plan, size: tuple[float, float] = (6.2, 4.0)) -> str:
    """`draw(axes, plan)` as an <svg> element."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure.subplots(), plan)
        out = io.StringIO()
        canvas.print_svg(out, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def surface(axes: Axes, plan: Plan) -> None:
    """Contours of the predicted loss over N and D, the line of the budget, and the plan."""
    law, budget = plan.law, compute_flops(plan)
    centre = plan.law_params, plan.tokens
    params = np.geomspace(centre[0] / 30, centre[0] * 30, 90)
    tokens = np.geomspace(centre[1] / 30, centre[1] * 30, 90)
    most = np.log(plan.model.vocab_size)
    loss = np.minimum(np.array([[law.loss(n, d) for n in params] for d in tokens], float), most)
    levels = np.quantile(loss, np.linspace(0.02, 0.97, 12))
    filled = axes.contourf(params, tokens, loss, levels=30, cmap="Blues_r")
    lines = axes.contour(params, tokens, loss, levels=np.unique(levels.round(3)), colors="white",
                         linewidths=0.7)  # fmt: skip
    axes.clabel(lines, fmt="%.2f", fontsize=8)
    same = np.array([tokens_at(budget, n, plan.request.inference_tokens) for n in params])
    shown = (same > tokens[0]) & (same < tokens[-1])
    axes.plot(params[shown], same[shown], color=INK, lw=1.4, ls="--", label="this budget")
    path = [law.optimum(budget * f) for f in np.geomspace(1e-4, 1e4, 60)]
    axes.plot(
        [p.params for p in path], [p.tokens for p in path], color=ACCENT, lw=1, label="optima"
    )
    axes.plot(*centre, "o", color=ACCENT, ms=9, mec="white", label="this plan")
    unique = plan.request.unique_tokens
    if unique and tokens[0] < unique < tokens[-1]:
        axes.axhline(unique, color=INK, lw=0.8, ls=":")
        axes.text(params[0] * 1.1, unique * 1.06, "unique tokens", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="training tokens",
             xlim=(params[0], params[-1]), ylim=(tokens[0], tokens[-1]))  # fmt: skip
    axes.figure.colorbar(filled, ax=axes, label="loss (nats/token)")
    axes.legend(loc="upper left", fontsize=8, framealpha=0.9)


def isoflop(axes: Axes, plan: Plan) -> None:
    """Loss against size at the same compute, with its interval and the flat range."""
    law, budget, serving = plan.law, compute_flops(plan), plan.request.inference_tokens
    params = np.geomspace(plan.law_params / 10, plan.law_params * 10, 121)
    points = [(n, tokens_at(budget, n, serving)) for n in params]
    vocab_size = plan.model.vocab_size
    told = [(n, *bounded(law, vocab_size, n, d)) for n, d in points if d > 0]
    known = [(n, loss, *interval) for n, loss, interval in told if loss and interval]
    sizes, losses, low, high = np.array(known).T
    axes.fill_between(sizes, low, high, color=BAND, lw=0, label="90% interval")
    axes.plot(sizes, losses, color=INK, lw=1.6, label="predicted")
    flat = None if serving else flat_range(law, budget, law.optimum(budget).params)
    if flat:
        axes.axvspan(*flat, color="#e9ecef", zorder=0, label="within 1% of the compute")
    bottom, top = plan.interval or (0.0, 0.0)
    middle = plan.loss or 0.0
    axes.errorbar(
        [plan.law_params], [middle], [[middle - bottom], [top - middle]],
        fmt="o", color=ACCENT, ms=8, capsize=4, label="this plan",
    )  # fmt: skip
    axes.set(xscale="log", xlabel="parameters, at the same compute", ylabel="loss (nats/token)")
    axes.legend(fontsize=8, framealpha=0.9, loc="upper center")


def memory(axes: Axes, plan: Plan) -> None:
    """One bar of bytes per device, by part, against the device's memory."""
    chip = plan.request.chip
    capacity = chip.hbm_bytes / chip.devices_per_chip / 1e9
    left = 0.0
    for key, value in plan.execution.memory.items():
        colour, label = PARTS[key]
        size = value / 1e9
        axes.barh([0], [size], left=left, color=colour, label=f"{label} {size:.3g} GB", height=0.5)
        left += size
    axes.axvline(capacity, color=INK, lw=1.5)
    axes.axvspan((1 - HEADROOM) * capacity, capacity, color="#ffe3e3", zorder=0)
    axes.text(capacity, 0.47, f"{capacity:.3g} GB ", ha="right", va="bottom", fontsize=9)
    axes.text(
        (1 - HEADROOM / 2) * capacity, -0.42, "kept free", ha="center", fontsize=8, color=ACCENT
    )
    axes.set(xlim=(0, capacity * 1.02), ylim=(-0.5, 0.6), yticks=[], xlabel="GB per device")
    axes.spines["left"].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=3, fontsize=8, frameon=False)


def roofline(axes: Axes, plan: Plan) -> None:
    """Attainable FLOP/s against FLOPs per byte, for memory and network, with the step on both."""
    chip, time, layout = plan.request.chip, plan.execution.time, plan.execution.layout
    peak = _device_peak(chip, plan)
    work = plan.batch_tokens / layout.devices * plan.flops_per_token.executed(layout.remat)
    reached = work / time.expected
    roofs = [("memory", chip.hbm_bandwidth / chip.devices_per_chip, time.hbm, "#1c4e80")]
    if time.comms > 0:
        roofs.append(("network", time.sent / time.comms, time.comms, "#e08e45"))
    marks = [work / (rate * seconds) for _, rate, seconds, _ in roofs]
    knees = [peak / rate for _, rate, _, _ in roofs]
    grid = np.geomspace(min(marks + knees) / 10, max(marks + knees) * 10, 200)
    for (name, rate, _, colour), mark in zip(roofs, marks, strict=True):
        axes.plot(grid, np.minimum(peak, grid * rate) / 1e12, color=colour, lw=1.6,
                  label=f"{name} roof, {rate / 1e9:,.4g} GB/s")  # fmt: skip
        axes.plot([mark], [reached / 1e12], "o", color=colour, mec="white", ms=9)
        axes.annotate(f"{name}", (mark, reached / 1e12), xytext=(6, -12 if name == "memory" else 7),
                      textcoords="offset points", fontsize=8, color=colour)  # fmt: skip
    share = calibration().of(chip).share
    axes.axhline(peak * share / 1e12, color=SOFT, lw=1, ls="--",
                 label=f"wide matmuls, {share:.0%} of the peak")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOPs per byte moved",
             ylabel="TFLOP/s per device", ylim=(reached / 30e12, peak * 2 / 1e12))  # fmt: skip
    axes.legend(fontsize=8, loc="lower right", framealpha=0.9)


def _device_peak(chip: Chip, plan: Plan) -> float:
    return chip.peak(plan.execution.layout.dtype) / chip.devices_per_chip


def seconds(axes: Axes, plan: Plan) -> None:
    """Seconds per step, by resource."""
    time = plan.execution.time
    own = {"compute": time.math, "memory": time.hbm, "host": time.host, "bubble": time.bubble}
    bars = {name: value for name, value in own.items() if value or name in ("compute", "memory")}
    bars |= {axis: value for axis, value in time.axes.items() if value}
    names, values = list(bars), list(bars.values())
    colours = ["#e08e45" if name in time.axes else "#1c4e80" for name in names]
    axes.barh(names[::-1], values[::-1], color=colours[::-1], height=0.6)
    for i, value in enumerate(values[::-1]):
        axes.text(value, i, f" {value:.3g} s", va="center", fontsize=9)
    axes.axvline(time.low, color=INK, lw=1, ls="--")
    axes.axvline(time.high, color=INK, lw=1, ls="--")
    axes.text(
        (time.low + time.high) / 2, len(names) - 0.5, "step", ha="center", va="bottom", fontsize=9
    )
    axes.axvspan(time.low, time.high, color="#e9ecef", zorder=0)
    axes.set(xlabel="seconds per step, by resource", xlim=(0, max(time.high, max(values)) * 1.18))
