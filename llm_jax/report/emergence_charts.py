"""The charts of scores against compute: leaping and smooth figures beside each other."""

from __future__ import annotations

from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from llm_jax.report.emergence import shots_in_words
from llm_jax.report.emergence_forecast import CONTINUOUS, TASK_LOSS
from llm_jax.report.plan_table import short
from llm_jax.report.svg import ACCENT, BLUE, INK, ORANGE, SOFT
from llm_jax.runs.metric_names import CHANCE, STDERR

NINETY = 1.645
"""Standard errors on both sides that make a 90% interval."""
COLOURS = (BLUE, ORANGE, INK, SOFT)
"""Of zero, one and more examples."""
APART = 1.03
"""Curves of neighbouring numbers of examples are drawn apart by this factor."""


def names(by_shots: dict[str, Any]) -> list[str]:
    """The figures of a task that are drawn: the leaping one first."""
    smooth = [k for k in CONTINUOUS if any(k in one["continuous"] for one in by_shots.values())]
    return [next(iter(by_shots.values()))["accuracy"], *smooth]


def panels(axes: Axes, points: list[dict[str, Any]], by_shots: dict[str, Any]) -> None:
    """Each figure of a task over training FLOPs, a curve for each number of examples shown."""
    figure, drawn = axes.figure, names(by_shots)
    axes.remove()
    grid = figure.subplots(1, len(drawn), squeeze=False)[0]
    for panel, name in zip(grid, drawn, strict=True):
        for place, (shots, one) in enumerate(by_shots.items()):
            colour = COLOURS[min(place, len(COLOURS) - 1)]
            key = one["accuracy"] if name == drawn[0] else name
            apart = APART ** (place - (len(by_shots) - 1) / 2)
            _curve(panel, points, one["figures"], key, colour, shots_in_words(shots), apart)
            _forecast(panel, points, one, "accuracy" if name == drawn[0] else name, colour)
        _chance(panel, by_shots, name == drawn[0])
        panel.set(xscale="log", xlabel="training FLOPs", title=CONTINUOUS.get(name, name))
        panel.title.set_fontsize(8)
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        panel.xaxis.set_major_formatter(FuncFormatter(_power))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.tick_params(labelsize=8)
    handles, labels = grid[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # each curve has a forecast
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=5, frameon=False)


def by_examples(axes: Axes, points: list[dict[str, Any]], by_shots: dict[str, Any]) -> None:
    """The leaping figure over the number of examples shown, a curve for each model (Brown et al.
    2020, figure 1.2)."""
    known = {int(shots): one for shots, one in by_shots.items() if shots.isdigit()}
    shades = colormaps["viridis_r"]
    for place, point in enumerate(points):
        line = [
            (shots, one["figures"][place][one["accuracy"]])
            for shots, one in known.items()
            if one["figures"][place] is not None
        ]
        if line:
            shade = shades(0.15 + 0.85 * place / max(len(points) - 1, 1))
            ends = place in (0, len(points) - 1)
            label = f"{short(point['params'])}, {short(point['tokens'])} tokens" if ends else None
            axes.plot(*zip(*line, strict=True), "o-", color=shade, ms=4, lw=1.4, label=label)
    axes.set(xlabel="examples shown in the context", ylabel=names(by_shots)[0])
    axes.set_xticks(list(known))
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)


def two_steps(axes: Axes, points: list[dict[str, Any]], one: dict[str, Any]) -> None:
    """What the forecast goes by: accuracy over the answer's loss, and that over the held-out
    loss."""
    figure = axes.figure
    axes.remove()
    left, right = figure.subplots(1, 2)
    known = [(p, f) for p, f in zip(points, one["figures"], strict=True) if f and TASK_LOSS in f]
    first = [(p["loss"], f[TASK_LOSS]) for p, f in known if p["loss"] is not None]
    second = [(f[TASK_LOSS], f[one["accuracy"]]) for _, f in known]
    for panel, pairs, words in (
        (left, first, ("held-out loss", "loss of the answer")),
        (right, second, ("loss of the answer", one["accuracy"])),
    ):
        panel.plot(*zip(*pairs[:-1], strict=True), "o", color=BLUE, ms=5, label="smaller models")
        panel.plot(*pairs[-1], "o", color=INK, ms=7, label="largest, measured")
        panel.set(xlabel=words[0], ylabel=words[1])
        panel.invert_xaxis()
        panel.tick_params(labelsize=8)
    told = one["forecast"]
    held_out = told["loss"]["predicted"] if told["loss"] else points[-1]["loss"]
    _error_bar(left, held_out, told["task_loss"])
    if told["accuracy"]:
        _error_bar(right, told["task_loss"]["predicted"], told["accuracy"])
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)


def _curve(
    panel: Axes,
    points: list[dict[str, Any]],
    figures: list[dict[str, float] | None],
    key: str,
    colour: str,
    label: str,
    apart: float,
) -> None:
    """Draws one curve, at `apart` times its FLOPs, so that its bars can be told from others."""
    line = [
        (apart * point["flops"], one[key], NINETY * one.get(key + STDERR, 0.0))
        for point, one in zip(points, figures, strict=True)
        if one is not None and key in one
    ]
    if line:
        x, y, error = zip(*line, strict=True)
        panel.errorbar(x, y, error, fmt="o-", color=colour, ms=4, lw=1.3, capsize=2, label=label)


def _power(value: float, place: int) -> str:
    """A tick such as 3e12."""
    return f"{value:.0e}".replace("e+", "e")


def _forecast(
    panel: Axes, points: list[dict[str, Any]], one: dict[str, Any], figure: str, colour: str
) -> None:
    """The largest model's figure as the smaller ones predict it, beside the measured one."""
    if one["forecast"] is None or figure not in ("accuracy", TASK_LOSS):
        return
    told = one["forecast"]["accuracy" if figure == "accuracy" else "task_loss"]
    if told:
        _error_bar(panel, 1.15 * points[-1]["flops"], told, edge=colour)


def _error_bar(panel: Axes, x: float, told: dict[str, Any], edge: str = ACCENT) -> None:
    low, high = told["interval"]
    middle = told["predicted"]
    panel.errorbar(
        [x], [middle], [[max(middle - low, 0)], [max(high - middle, 0)]],
        fmt="D", color=ACCENT, mec=edge, ms=5, capsize=3, label="predicted, 90%", zorder=5,
    )  # fmt: skip


def _chance(panel: Axes, by_shots: dict[str, Any], leaping: bool) -> None:
    chance = [f[CHANCE] for one in by_shots.values() for f in one["figures"] if f and CHANCE in f]
    if leaping and chance:
        panel.axhline(chance[0], color=SOFT, lw=1, ls="--", label="chance")
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
