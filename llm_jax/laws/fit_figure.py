"""The figure of a fit: the runs with the law, measured against predicted loss, and residuals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from llm_jax.laws.law import Parametric
from llm_jax.laws.run_losses import Runs
from llm_jax.runs.files import replacing


def draw(runs: Runs, law: Parametric, path: Path) -> None:
    """Writes the figure to `path` (PNG, PDF or SVG, by its suffix)."""
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    surface, match, rest = figure.subplots(1, 3)
    colour = ScalarMappable(LogNorm(runs.flops.min(), runs.flops.max() * 1.001), "viridis")
    shades = colour.to_rgba(runs.flops)
    predicted = law.E + law.A * runs.params**-law.alpha + law.B * runs.tokens**-law.beta

    grid = np.geomspace(runs.tokens.min(), runs.tokens.max(), 100)
    sizes = np.unique(runs.params)
    for size in sizes[np.linspace(0, len(sizes) - 1, min(len(sizes), 12)).astype(int)]:
        surface.plot(grid, [law.loss(size, d) for d in grid], color="0.75", lw=0.8, zorder=1)
    surface.scatter(runs.tokens, runs.loss, c=shades, s=18, zorder=2)
    surface.set(xscale="log", xlabel="tokens", ylabel="loss (nats/token)")
    surface.set_title("Runs, and the law at up to 12 of their sizes")

    match.scatter(predicted, runs.loss, c=shades, s=18)
    ends = [min(predicted.min(), runs.loss.min()), max(predicted.max(), runs.loss.max())]
    match.plot(ends, ends, color="0.5", lw=1)
    match.set(xlabel="predicted loss", ylabel="measured loss")
    match.set_title(
        f"L = {law.E:.3f} + {law.A:.4g}/N^{law.alpha:.3f} + {law.B:.4g}/D^{law.beta:.3f}"
    )

    rest.axhline(0, color="0.5", lw=1)
    rest.axhspan(-164.5 * law.residual, 164.5 * law.residual, color="0.92", zorder=0)
    rest.scatter(runs.flops, 100 * np.log(runs.loss / predicted), c=shades, s=18)
    rest.set(xscale="log", xlabel="FLOPs (6ND)", ylabel="measured minus predicted loss (%)")
    rest.set_title(f"Residuals (band: 90%, s = {100 * law.residual:.2g}%)")
    figure.colorbar(colour, ax=rest, label="FLOPs")
    with replacing(path) as temporary:
        canvas.print_figure(temporary, dpi=130)
