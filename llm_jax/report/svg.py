"""Charts as inline <svg> elements that follow the page's colours, light and dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from llm_jax.report.plan_table import short

INK, SOFT, ACCENT, BAND = "#1f2933", "#9aa5b1", "#c2410c", "#c5d9ee"
RANGE, FAINT, BLUE, ORANGE = "#e9ecef", "#9bb7d4", "#1c4e80", "#b35c12"
PAPER, WHITE = "#ffffff", "#fefefe"
VARIABLES = {
    INK: "ink",
    SOFT: "axis",
    ACCENT: "accent",
    BAND: "band",
    RANGE: "range",
    FAINT: "faint",
    BLUE: "blue",
    ORANGE: "orange",
    PAPER: "paper",
}
"""Colour of a chart → variable of the page's style; `WHITE` and all others stay as they are."""
SIZE = (5.0, 3.3)
"""Inches. On a phone the text is then 8 pixels high, in two columns 13."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llm_jax",
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.fontsize": 9,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": PAPER,
    "legend.edgecolor": RANGE,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def svg(draw: Callable[[Axes], None], label: str, size: tuple[float, float] = SIZE) -> str:
    """What `draw` draws as an <svg> element; `label` says in words what it shows."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure.subplots())
        out = io.StringIO()
        with warnings.catch_warnings():
            # The reader's fonts draw the text, not Matplotlib's.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            canvas.print_svg(out, metadata=NO_METADATA)
    text = out.getvalue()
    text = re.sub(r' id="[A-Za-z0-9_]+_\d+"', "", text[text.index("<svg") :])
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"#[0-9a-f]{6}\b", _themed, text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _themed(colour: re.Match[str]) -> str:
    name = VARIABLES.get(colour[0])
    return f"var(--{name})" if name else colour[0]


def short_ticks(axis: Axis, bins: int = 5) -> None:
    """Ticks such as `200K` and `1.5B` on a linear axis, at most `bins` + 1 of them."""
    axis.set_major_locator(MaxNLocator(bins))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def log_ticks(axis: Axis) -> None:
    """Ticks such as `1B`, `3B` and `10B` on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())
