"""Predicted and measured figures as a picture and as one self-contained page."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from llm_jax.report.charts import ACCENT, BAND, INK, SOFT, STYLE
from llm_jax.report.html import document, figure, listing, section, table
from llm_jax.report.plan_table import duration, money, short

Curves = dict[str, list[tuple[float, float]]]


def rows(found: dict[str, Any]) -> list[list[str]]:
    """One row per measured figure: name, predicted, measured, difference."""

    def line(what: str, key: str, form: Any, error: str | None = None, more: str = "") -> list[str]:
        predicted, measured = found[f"predicted_{key}"], found[f"measured_{key}"]
        difference = found[error] if error else None
        return [
            what,
            "–" if predicted is None else form(predicted) + more,
            "–" if measured is None else form(measured),
            "–" if difference is None else f"{difference:+.1%}",
        ]

    interval, around = found["predicted_loss_interval"], ""
    if interval and None not in interval:
        around = f" ({interval[0]:.3f} to {interval[1]:.3f})"
    lines = [
        line("validation loss, nats/token", "loss", "{:.4f}".format, "loss_error", around),
        ["validation bits per byte", "–", f"{found['measured_bits_per_byte']:.4f}", "–"],
        line("step time", "step_seconds", _seconds, "step_seconds_error"),
        line("time of all steps", "seconds", lambda s: duration(s / 3600), "seconds_error"),
        line("tokens per second", "tokens_per_second", "{:,.0f}".format),
    ]
    if found["measured_usd"] is not None:
        lines.append(line("cost", "usd", money))
    return lines


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _loss(axes: Axes, found: dict[str, Any], curves: Curves) -> None:
    axes.plot(*zip(*curves["train"], strict=True), color="#9bb7d4", lw=0.9, label="training")
    axes.plot(*zip(*curves["validation"], strict=True), "o-", color=INK, ms=4, label="validation")
    if found["predicted_loss"] is not None:
        low, high = found["predicted_loss_interval"]
        middle = found["predicted_loss"]
        axes.errorbar(
            [found["tokens"]], [middle], [[middle - low], [high - middle]],
            fmt="D", color=ACCENT, ms=7, capsize=5, label="predicted, 90% interval",
        )  # fmt: skip
    axes.set(xlabel="tokens", ylabel="loss (nats/token)")
    axes.legend(fontsize=9, frameon=False)


def _speed(axes: Axes, found: dict[str, Any], curves: Curves) -> None:
    axes.plot(*zip(*curves["step"], strict=True), color=INK, lw=1, label="measured")
    if found["predicted_step_seconds"] is not None:
        low, high = found["predicted_step_seconds_range"]
        axes.axhspan(low, high, color=BAND, lw=0, zorder=0)
        axes.axhline(found["predicted_step_seconds"], color=ACCENT, lw=1.5, label="predicted")
    axes.set(xlabel="tokens", ylabel="seconds per step", ylim=(0, None))
    axes.axhline(found["measured_step_seconds"], color=SOFT, lw=1, ls="--", label="median")
    axes.legend(fontsize=9, frameon=False)


def _drawn(found: dict[str, Any], curves: Curves, panels: list[Any]) -> Figure:
    made = Figure(figsize=(6.2 * len(panels), 4.2), layout="constrained")
    for axes, panel in zip(made.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes, found, curves)
    return made


def draw(found: dict[str, Any], curves: Curves, path: Path) -> None:
    """Writes the two charts to `path` as a PNG."""
    with rc_context(STYLE):
        made = _drawn(found, curves, [_loss, _speed])
        FigureCanvasAgg(made)
        made.savefig(path, dpi=150)


def _svg(found: dict[str, Any], curves: Curves, panel: Any) -> str:
    with rc_context(STYLE):
        made = _drawn(found, curves, [panel])
        out = io.StringIO()
        FigureCanvasSVG(made).print_svg(out, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def sizes(params: int | None) -> str:
    """How large the model is, if that is known."""
    return "model of its own kind" if params is None else f"{short(params)} parameters"


def page(found: dict[str, Any], curves: Curves) -> str:
    """The report of `outcome.compare` as HTML."""
    title = f"{found['name']}: predicted and measured"
    law = found["law"]
    law_name = "no law" if law is None else f"law {law}"
    header = (
        f"<header><h1>{escape(title)}</h1><p class=soft>{sizes(found['params'])} · "
        f"{short(found['tokens'])} tokens · step {found['step']:,} of {found['steps']:,} · "
        f"{escape(law_name)} · {escape(found['machine'] or 'machine not planned')}</p></header>"
    )
    warnings = f'<div class="warn">{listing(found["warnings"])}</div>' if found["warnings"] else ""
    charts = (
        '<div class="pair">'
        + figure(_svg(found, curves, _loss), "Loss over the run, and the predicted final loss.")
        + figure(
            _svg(found, curves, _speed),
            "Time per step, without compilation, evaluation and saving. The ends of the band are "
            "the predictions with all and with no communication overlapped.",
        )
        + "</div>"
    )
    head = ["", "Predicted #", "Measured #", "Predicted − measured #"]
    return document(
        title,
        [header, warnings, section("The plan and the run", table(rows(found), head)), charts],
    )
