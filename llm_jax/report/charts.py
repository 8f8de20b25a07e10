"""The charts of a plan's page."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from llm_jax.facts.calibration import calibration
from llm_jax.facts.hardware import Chip
from llm_jax.plan.isoflop import flat_range, tokens_at
from llm_jax.plan.output import compute_flops
from llm_jax.plan.plan import Plan
from llm_jax.plan.sense import bounded
from llm_jax.report.svg import ACCENT, BAND, BLUE, INK, ORANGE, RANGE, SOFT, WHITE, log_ticks

NIGHT, FIRE = "#0b0f14", "#f97316"
"""On the blue of the contours, which is the same in light and dark."""


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
    lines = axes.contour(params, tokens, loss, levels=np.unique(levels.round(3)), colors=WHITE,
                         linewidths=0.7)  # fmt: skip
    axes.clabel(lines, fmt="%.2f", fontsize=8)
    same = np.array([tokens_at(budget, n, plan.request.inference_tokens) for n in params])
    shown = (same > tokens[0]) & (same < tokens[-1])
    axes.plot(params[shown], same[shown], color=NIGHT, lw=1.4, ls="--")
    path = [law.optimum(budget * f) for f in np.geomspace(1e-4, 1e4, 60)]
    axes.plot([p.params for p in path], [p.tokens for p in path], color=FIRE, lw=1.4)
    axes.plot(*centre, "o", color=FIRE, ms=9, mec=WHITE)
    unique = plan.request.unique_tokens
    if unique and tokens[0] < unique < tokens[-1]:
        axes.axhline(unique, color=WHITE, lw=1, ls=":")
        axes.text(params[0] * 1.1, unique * 1.06, "unique tokens", color=WHITE, fontsize=9)
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="training tokens",
             xlim=(params[0], params[-1]), ylim=(tokens[0], tokens[-1]))  # fmt: skip
    log_ticks(axes.xaxis)
    log_ticks(axes.yaxis)
    axes.figure.colorbar(filled, ax=axes, label="loss (nats/token)")


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
        axes.axvspan(*flat, color=RANGE, zorder=0, label="within 1% of the compute")
    bottom, top = plan.interval or (0.0, 0.0)
    middle = plan.loss or 0.0
    axes.errorbar(
        [plan.law_params], [middle], [[middle - bottom], [top - middle]],
        fmt="o", color=ACCENT, ms=8, capsize=4, label="this plan",
    )  # fmt: skip
    axes.set(xscale="log", xlabel="parameters, at the same compute", ylabel="loss (nats/token)")
    log_ticks(axes.xaxis)
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)


def roofline(axes: Axes, plan: Plan) -> None:
    """Attainable FLOP/s against FLOPs per byte, for memory and network, with the step on both."""
    chip, time, layout = plan.request.chip, plan.execution.time, plan.execution.layout
    peak = _device_peak(chip, plan)
    work = plan.batch_tokens / layout.devices * plan.flops_per_token.executed(layout.remat)
    reached = work / time.expected
    roofs = [("memory", chip.hbm_bandwidth / chip.devices_per_chip, time.hbm, BLUE)]
    if time.comms > 0:
        roofs.append(("network", time.sent / time.comms, time.comms, ORANGE))
    marks = [work / (rate * seconds) for _, rate, seconds, _ in roofs]
    knees = [peak / rate for _, rate, _, _ in roofs]
    grid = np.geomspace(min(marks + knees) / 10, max(marks + knees) * 10, 200)
    for (name, rate, _, colour), mark in zip(roofs, marks, strict=True):
        axes.plot(grid, np.minimum(peak, grid * rate) / 1e12, color=colour, lw=1.6,
                  label=f"{name} roof, {rate / 1e9:,.4g} GB/s")  # fmt: skip
        axes.plot([mark], [reached / 1e12], "o", color=colour, mec=WHITE, ms=9)
        axes.annotate(f"{name}", (mark, reached / 1e12), xytext=(6, -12 if name == "memory" else 7),
                      textcoords="offset points", fontsize=8, color=colour)  # fmt: skip
    share = calibration().of(chip).share
    axes.axhline(peak * share / 1e12, color=SOFT, lw=1, ls="--",
                 label=f"wide matmuls, {share:.0%} of the peak")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOPs per byte moved",
             ylabel="TFLOP/s per device", ylim=(reached / 30e12, peak * 2 / 1e12))  # fmt: skip
    log_ticks(axes.xaxis)
    log_ticks(axes.yaxis)
    axes.legend(loc="lower right", framealpha=0.9)


def _device_peak(chip: Chip, plan: Plan) -> float:
    return chip.peak(plan.execution.layout.dtype) / chip.devices_per_chip
