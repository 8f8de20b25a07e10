"""Scores on tasks against compute, as one self-contained page."""

from __future__ import annotations

from functools import partial
from typing import Any

from llm_jax.config.wording import counted
from llm_jax.report import emergence_charts as charts
from llm_jax.report.emergence import INTERVALS, sentences, shots_in_words
from llm_jax.report.emergence_forecast import CONTINUOUS, TASK_LOSS
from llm_jax.report.html import UNKNOWN, box, document, figure, head, pair, section, table
from llm_jax.report.plan_table import short
from llm_jax.report.svg import svg
from llm_jax.runs.metric_names import STDERR

TITLE = "Scores against compute"
FORECAST = ["Examples shown", "Figure", "Predicted #", "90% interval #", "Measured #",
            "Difference #", "In the interval"]  # fmt: skip
MODELS = ["Model", "Parameters #", "Tokens #", "FLOPs #", "Held-out loss #"]
WIDE = 9.6
"""Inches of a row of panels."""


def page(found: dict[str, Any]) -> str:
    """The page of `emergence`'s figures."""
    points, tasks = found["points"], found["tasks"]
    kind = "ladder" if found["ladder"] else "checkpoints of one run"
    line = f"{kind} · {counted(len(points), 'model')} · {counted(len(tasks), 'task')}"
    sections = [
        head(TITLE, line, _tiles(points)),
        box("note", "Leaps and smooth growth", sentences(found)),
        box("warn", "Know when you read this", found["notes"]),
        *(
            section(_titled(task, found["versions"][task]), _task(points, by_shots))
            for task, by_shots in tasks.items()
        ),
        section("The models", table(_models(points), MODELS)),
        section("How to read it", READING),
    ]
    return document(f"{TITLE}: {found['folder']}", sections)


READING = (
    "<p>Accuracy and exact match count only the whole answer: the probability of each of its "
    "tokens can rise for a long time before one more answer is right, and then the figure leaps. "
    "The probability of the answer, the Brier score and the edit distance see the way there "
    "(Schaeffer et al. 2023, on Wei et al. 2022). Intervals are of 90%, over the examples of a "
    "task; runs are not repeated.</p><p>The forecast goes in two steps. The answer's loss is a "
    "line over the held-out loss, which a scaling law of the smaller models predicts. Accuracy is "
    "a sigmoid over the answer's loss, from chance to 1 (Grattafiori et al. 2024; Gadre et al. "
    "2024). The largest model has no part in it.</p>"
)


def _tiles(points: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (
            name,
            f"{one['flops']:.2g} FLOPs",
            f"{short(one['params'])} parameters, {short(one['tokens'])} tokens",
        )
        for name, one in (("Smallest", points[0]), ("Largest", points[-1]))
    ]


def _titled(task: str, version: str | None) -> str:
    return task if version is None else f"{task}, version {version}"


def _task(points: list[dict[str, Any]], by_shots: dict[str, Any]) -> str:
    drawn = charts.names(by_shots)
    wide = svg(
        partial(charts.panels, points=points, by_shots=by_shots),
        f"{', '.join(drawn)} over training FLOPs: {_words(points, by_shots)}.",
        (WIDE, 3.4),
    )
    body = figure(
        wide,
        "Left the figure that can leap, beside it those that grow smoothly; bars are 90% "
        "intervals. The diamond is the forecast from the smaller models.",
    )
    smaller = []
    if sum(shots.isdigit() for shots in by_shots) > 1:
        drawing = svg(
            partial(charts.by_examples, points=points, by_shots=by_shots),
            f"{drawn[0]} over the number of examples shown, for each model.",
        )
        smaller.append(figure(drawing, "What examples in the context add, from the smallest model "
                              "(light) to the largest (dark)."))  # fmt: skip
    known = [(shots, one) for shots, one in by_shots.items() if one["forecast"]]
    # If accuracy is forecast for some number of examples, the first of those.
    told = next((pair for pair in known if pair[1]["forecast"]["accuracy"]), None)
    told = told or next(iter(known), None)
    if told:
        drawing = svg(
            partial(charts.two_steps, points=points, one=told[1]),
            "The two steps of the forecast: the answer's loss over the held-out loss, accuracy "
            "over the answer's loss.",
        )
        smaller.append(
            figure(drawing, f"The two steps of the forecast, {shots_in_words(told[0])}.")
        )
    rows = forecast_rows(by_shots)
    body += pair(*smaller)
    if rows:
        body += table(rows, FORECAST) + box("warn", "What the intervals leave out", [INTERVALS])
    body += box("note", "What is not forecast", missing(by_shots))
    figures = table(*_figures(points, by_shots))
    return f"{body}<details><summary>All figures, ± one standard error</summary>{figures}</details>"


def _words(points: list[dict[str, Any]], by_shots: dict[str, Any]) -> str:
    """Where each curve of the leaping figure begins and ends."""
    parts = []
    for shots, one in by_shots.items():
        known = [f[one["accuracy"]] for f in one["figures"] if f is not None]
        parts.append(f"{shots_in_words(shots)} from {known[0]:.2f} to {known[-1]:.2f}")
    return "; ".join(parts)


def forecast_rows(by_shots: dict[str, Any]) -> list[list[str]]:
    """One row for each predicted figure, with the columns of `FORECAST`."""
    rows = []
    for shots, one in by_shots.items():
        for name, told in (one["forecast"] or {}).items():
            if told is None:
                continue
            low, high = told["interval"]
            what = {"loss": "held-out loss, nats/token", "task_loss": CONTINUOUS[TASK_LOSS]}
            rows.append(
                [
                    shots_in_words(shots),
                    what.get(name, one["accuracy"]),
                    f"{told['predicted']:.4f}",
                    f"{low:.4f} to {high:.4f}",
                    f"{told['measured']:.4f}",
                    f"{told['difference']:+.4f}",
                    "yes" if told["within"] else "no",
                ]
            )
    return rows


def missing(by_shots: dict[str, Any]) -> list[str]:
    """Why forecasts are missing."""
    reasons: dict[str, list[str]] = {}
    for shots, one in by_shots.items():
        if one["why"]:
            reasons.setdefault(one["why"], []).append(shots_in_words(shots))
    return [f"{', '.join(shots)}: {why}." for why, shots in reasons.items()]


def _figures(
    points: list[dict[str, Any]], by_shots: dict[str, Any]
) -> tuple[list[list[str]], list[str]]:
    """Every drawn figure of every model, and the head of the table."""
    drawn = charts.names(by_shots)
    rows = []
    for place, point in enumerate(points):
        for shots, one in by_shots.items():
            figures = one["figures"][place]
            if figures is None:
                continue
            cells = [_cell(figures, one["accuracy"])]
            cells += [_cell(figures, name) for name in drawn[1:]]
            rows.append([point["name"], f"{point['flops']:.2e}", shots_in_words(shots), *cells])
    titles = [f"{CONTINUOUS.get(name, name)} #" for name in drawn]
    return rows, ["Model", "FLOPs #", "Examples shown", *titles]


def _cell(figures: dict[str, float], name: str) -> str:
    if name not in figures:
        return UNKNOWN
    error = figures.get(name + STDERR)
    return f"{figures[name]:.4f}" + ("" if error is None else f" ± {error:.4f}")


def _models(points: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            one["name"],
            f"{one['params']:,}",
            f"{one['tokens']:,}",
            f"{one['flops']:.3g}",
            UNKNOWN if one["loss"] is None else f"{one['loss']:.4f}",
        ]
        for one in points
    ]
