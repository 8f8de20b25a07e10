"""The charts of a run's report, over tokens read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from llm_jax.report.amounts import digits, in_units
from llm_jax.report.plan_table import short
from llm_jax.report.series import Curve, Series, thinned
from llm_jax.report.svg import ACCENT, BAND, BLUE, FAINT, INK, STYLE, short_ticks

ROBUST = 0.02
"""Share of the raw losses at either end that may leave the picture."""


def loss(axes: Axes, found: dict[str, Any], run: Series) -> None:
    """Training loss, raw and smoothed, validation loss, and what was predicted."""
    _draw(axes, run.loss, FAINT, lw=0.6, alpha=0.7, label="training")
    _draw(axes, run.smooth_loss, BLUE, lw=1.8, label="training, smoothed")
    axes.plot(*zip(*thinned(run.validation), strict=True), "o-", color=INK, ms=4, lw=1,
              label="validation")  # fmt: skip
    shown = [value for _, value in run.smooth_loss + run.validation]
    raw = sorted(value for _, value in run.loss)
    shown += [raw[int(ROBUST * len(raw))], raw[int((1 - ROBUST) * (len(raw) - 1))]]
    if found["predicted_loss"] is not None:
        low, high = found["predicted_loss_interval"] or [found["predicted_loss"]] * 2
        middle = found["predicted_loss"]
        axes.errorbar(
            [found["tokens"]], [middle], [[max(middle - low, 0)], [max(high - middle, 0)]],
            fmt="D", color=ACCENT, ms=6, capsize=5, label="predicted, 90%", zorder=5,
        )  # fmt: skip
        shown += [low, high]
    margin = 0.05 * (max(shown) - min(shown)) or 0.1
    axes.set(ylabel="loss (nats/token)", ylim=(min(shown) - margin, max(shown) + margin))
    _events(axes, run)


def by_source(axes: Axes, found: dict[str, Any], run: Series) -> None:
    """Validation loss of each source of a mixture."""
    lines: dict[str, Line2D] = {}
    for place, (name, curve) in enumerate(run.by_source.items()):
        points = zip(*thinned(curve), strict=True)
        (lines[name],) = axes.plot(*points, "o-", color=f"C{place}", ms=3, lw=1.4)
    axes.set(ylabel="validation loss (nats/token)")
    _events(axes, run, lines)


def scores(axes: Axes, found: dict[str, Any], run: Series) -> None:
    """The scores of the tasks."""
    lines: dict[str, Line2D] = {}
    for place, (name, curve) in enumerate(run.scores.items()):
        (lines[name],) = axes.plot(
            *zip(*thinned(curve), strict=True), "o-", color=f"C{place}", ms=3, lw=1.4
        )
    axes.set(ylabel="score", ylim=(-0.02, 1.02))
    _events(axes, run, lines)


def learning_rate(axes: Axes, found: dict[str, Any], run: Series) -> None:
    _draw(axes, run.learning_rate, BLUE, lw=1.6, label="learning rate")
    axes.set(ylabel="learning rate", ylim=(0, None))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: digits(value, 3)))
    _events(axes, run)


def grad_norm(axes: Axes, found: dict[str, Any], run: Series) -> None:
    _draw(axes, run.grad_norm, FAINT, lw=0.6, alpha=0.7, label="each record")
    _draw(axes, run.smooth_grad_norm, BLUE, lw=1.8, label="smoothed")
    axes.set(ylabel="gradient norm", ylim=(0, None))
    _events(axes, run)


def throughput(axes: Axes, found: dict[str, Any], run: Series) -> None:
    """Tokens per second, and what was planned."""
    _draw(axes, run.tokens_per_second, BLUE, lw=1.2, label="measured")
    planned = found["predicted_tokens_per_second"]
    if planned is not None:
        low, high = found["predicted_step_seconds_range"]
        middle = found["predicted_step_seconds"]
        axes.axhspan(planned * middle / high, planned * middle / low, color=BAND, lw=0, zorder=0)
        axes.axhline(planned, color=ACCENT, lw=1.5, label="planned")
    axes.set(ylabel="tokens per second", ylim=(0, None))
    short_ticks(axes.yaxis)
    _events(axes, run)


def mfu(axes: Axes, found: dict[str, Any], run: Series) -> None:
    _draw(axes, run.mfu, BLUE, lw=1.2, label="MFU")
    axes.set(ylabel="MFU", ylim=(0, None))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _events(axes, run)


def draw(found: dict[str, Any], run: Series, path: Path) -> None:
    """Writes the charts of loss, by source too if there are several, of scores, and of speed as a
    PNG."""
    charts = [
        loss,
        *([by_source] if run.by_source else []),
        *([scores] if run.scores else []),
        throughput,
    ]
    with rc_context(STYLE):
        made = Figure(figsize=(6.2 * len(charts), 4.2), layout="constrained")
        for axes, chart in zip(made.subplots(1, len(charts)), charts, strict=True):
            chart(axes, found, run)
        FigureCanvasAgg(made)
        made.savefig(path, dpi=150)


def in_words(curve: Curve, form: Any) -> str:
    """What a curve shows, for those who do not see it: where it begins, where it ends."""
    (_, first), (tokens, last) = curve[0], curve[-1]
    return f"from {form(first)} to {form(last)} at {short(tokens)} tokens"


def seconds(value: float) -> str:
    return in_units(value, ((1.0, "s"), (1e-3, "ms")))


def _draw(axes: Axes, curve: Curve, colour: str, **style: Any) -> None:
    axes.plot(*zip(*thinned(curve), strict=True), color=colour, **style)


def _events(axes: Axes, run: Series, lines: Mapping[str, Line2D] | None = None) -> None:
    """Marks restarts and skipped steps, and finishes the axes.

    Args:
      lines: by their names in the legend, any names: a label that begins with `_` is not shown.
    """
    for i, tokens in enumerate(run.restarts):
        axes.axvline(tokens, color=INK, lw=0.9, ls=":", label="restart" if i == 0 else None)
    if run.skipped:
        bottom = [0.02] * len(run.skipped)
        axes.plot(run.skipped, bottom, "x", color=ACCENT, ms=6, clip_on=False, label="skipped step",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set(xlabel="tokens", xlim=(0, 1.02 * run.loss[-1][0]))
    short_ticks(axes.xaxis)
    # Outside, so that it covers no curve.
    lines, (handles, labels) = lines or {}, axes.get_legend_handles_labels()
    axes.legend([*lines.values(), *handles], [*lines, *labels], loc="lower center",
                bbox_to_anchor=(0.45, 1.0), ncols=3, frameon=False, columnspacing=1.2,
                handlelength=1.5)  # fmt: skip
