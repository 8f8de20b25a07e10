"""What became of a run, as one self-contained page."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from llm_jax.laws.run_curves import records
from llm_jax.report import run_charts, verdict
from llm_jax.report.amounts import ENERGY, SECONDS, in_units, rounded, span
from llm_jax.report.html import (
    UNKNOWN,
    bars,
    box,
    document,
    figure,
    head,
    listing,
    pair,
    section,
    table,
)
from llm_jax.report.outcome import METRICS, config_of, is_number
from llm_jax.report.plan_table import duration, money, short
from llm_jax.report.run_facts import run_rows, text_rows
from llm_jax.report.scores import scores_section
from llm_jax.report.series import Series
from llm_jax.report.svg import svg
from llm_jax.runs.history import read_history
from llm_jax.runs.kept import read_evaluations, read_samples
from llm_jax.runs.starts import read_starts

HEAD = ["", "Predicted #", "90% interval #", "Measured #", "Difference #"]
PHASES = {
    "productive": "steps that count",
    "lost": "steps done again after a restart",
    "idle": "between starts",
    "compile": "compiling",
    "startup": "starting",
    "restore": "reading checkpoints",
    "save": "saving checkpoints",
    "eval": "measuring the validation loss",
    "tasks": "scoring tasks",
}
"""Phase of the account of time → what it is."""

CHARTS = (
    ("smooth_loss", run_charts.loss, "Training loss", "{:.2f} nats per token".format,
     "Loss. Single steps that are far off may lie outside of the picture."),
    ("learning_rate", run_charts.learning_rate, "Learning rate", "{:.2g}".format,
     "Learning rate of each step."),
    ("grad_norm", run_charts.grad_norm, "Norm of the gradient", "{:.2f}".format,
     "Norm of the gradient before it is clipped."),
    ("tokens_per_second", run_charts.throughput, "Throughput", "{:,.0f} tokens per second".format,
     "Tokens per second in training steps, without compilation, evaluation and saving. A band is "
     "the plan's 90% interval."),
    ("mfu", run_charts.mfu, "MFU", "{:.0%}".format,
     "Share of the peak FLOP/s that the model's FLOPs reach."),
)  # fmt: skip
"""A curve of `Series`, how it is drawn, and what it shows."""


def rows(found: dict[str, Any]) -> list[list[str]]:
    """One row per measured figure, with the columns of `HEAD`."""

    def line(what: str, key: str, form: Any, interval: Any = None) -> list[str]:
        predicted, measured = found[f"predicted_{key}"], found[f"measured_{key}"]
        compared = found.get(f"{key}_error") is not None
        low, high = interval or (0.0, 0.0)
        return [
            what,
            UNKNOWN if predicted is None else form(predicted),
            UNKNOWN if low == high else span(low, high, form),
            UNKNOWN if measured is None else form(measured),
            f"{measured / predicted - 1:+.1%}" if compared else UNKNOWN,
        ]

    seconds = run_charts.seconds
    lines = [
        line("validation loss, nats/token", "loss", "{:.4f}".format,
             found["predicted_loss_interval"]),
        ["validation bits per byte", UNKNOWN, UNKNOWN,
         _figure(found, "measured_bits_per_byte"), UNKNOWN],
        line("step time", "step_seconds", seconds, found["predicted_step_seconds_range"]),
        line("time of all steps", "seconds", lambda s: duration(s / 3600)),
        line("tokens per second", "tokens_per_second", "{:,.0f}".format),
        line("time of all starts", "hours", duration),
    ]  # fmt: skip
    for what, key, form in (("cost", "usd", money), ("energy", "kwh", _energy)):
        if found[f"measured_{key}"] is not None:
            lines.append(line(what, key, form))
    return lines


def page(folder: Path, found: dict[str, Any], run: Series) -> str:
    """The report of the run in `folder`, whose figures are `found` (`outcome.compare`).

    Raises:
      UserError: a file of the run is damaged.
    """
    config = config_of(folder)
    history, starts = read_history(folder, config), read_starts(folder)
    read, missing = text_rows(config, history, found["step"])
    sections = [
        head(f"{found['name']}: what became of the run", _line(found), _tiles(found)),
        _verdict(folder, found),
        box("warn", "Know when you read this", found["warnings"]),
        section("Predicted and measured", table(rows(found), HEAD)),
        section("The course of the run", _charts(found, run)),
        section("Loss by source", _by_source(folder, run)),
        section("Scores on tasks", scores_section(folder, run)),
        section("Where the time went", _time(found)),
        section("Evaluations", _evaluations(folder)),
        section("Samples", _samples(folder)),
        section("What it read", table(read, ["", ""]) + (listing(missing) if missing else "")),
        section("The run", table(run_rows(config, history, starts), ["", ""])),
    ]
    return document(f"{found['name']}: report", sections)


def sizes(params: int | None) -> str:
    """How large the model is, if that is known."""
    return "model of its own kind" if params is None else f"{short(params)} parameters"


def _line(found: dict[str, Any]) -> str:
    law = "" if found["law"] is None else f" · law {found['law']}"
    machine = found["devices"] or found["machine"] or "machine not noted"
    return (
        f"{sizes(found['params'])} · {short(found['tokens'])} tokens · step {found['step']:,} of "
        f"{found['steps']:,} · {machine}{law}"
    )


def _tiles(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    predicted, planned = found["predicted_loss"], found["predicted_hours"]
    mfu = "" if found["mfu"] is None else f"MFU {found['mfu']:.0%}"
    tiles = [
        ("Validation loss", f"{found['measured_loss']:.3f}",
         "nats/token" + ("" if predicted is None else f", predicted {predicted:.3f}")),
        ("Bits per byte", _figure(found, "measured_bits_per_byte", 3), "held-out text"),
        ("Time", duration(found["measured_hours"]),
         "" if planned is None else f"planned {duration(planned)}"),
        ("Tokens per second", f"{found['measured_tokens_per_second']:,.0f}", mfu),
    ]  # fmt: skip
    if found["goodput"] is not None:
        again = found["starts"] - 1
        restarts = "no restart" if again == 0 else f"{again} restart{'s' * (again > 1)}"
        tiles.append(("Goodput", f"{found['goodput']:.0%}", restarts))
    if found["measured_usd"] is not None:
        usd = found["predicted_usd"]
        tiles.append(("Cost", money(found["measured_usd"]), f"planned {rounded(usd)}"))
    return tiles


def _verdict(folder: Path, found: dict[str, Any]) -> str:
    title, kind = verdict.headline(found)
    lines = verdict.sentences(found)
    if narrower := verdict.narrower(found, str(folder)):
        lines.append(narrower)
    return box(kind, title, lines)


def _charts(found: dict[str, Any], run: Series) -> str:
    drawn = []
    for name, draw, words, form, caption in CHARTS:
        if curve := getattr(run, name):
            label = f"{words}, {run_charts.in_words(curve, form)}."
            drawn.append(figure(svg(partial(draw, found=found, run=run), label), caption))
    return pair(*drawn) + _events(found)


def _by_source(folder: Path, run: Series) -> str:
    """The validation loss of each source of a mixture, and how much of it was read."""
    if not run.by_source:
        return ""
    last = records(folder / METRICS, "validation")[-1]
    rows = [
        [name, f"{curve[0][1]:.4f}", f"{curve[-1][1]:.4f}", _figure(last, f"bits_per_byte/{name}")]
        for name, curve in run.by_source.items()
    ]
    words = "; ".join(
        f"{name} {run_charts.in_words(curve, '{:.2f}'.format)}"
        for name, curve in run.by_source.items()
    )
    label = f"Validation loss by source: {words}."
    drawn = figure(
        svg(partial(run_charts.by_source, found={}, run=run), label),
        "Validation loss of each source. The loss of the whole run counts them in its shares.",
    )
    return pair(drawn, table(rows, ["Source", "First loss #", "Last loss #", "Bits per byte #"]))


def _figure(record: dict[str, Any], name: str, digits: int = 4) -> str:
    return f"{record[name]:.{digits}f}" if is_number(record.get(name)) else UNKNOWN


def _events(found: dict[str, Any]) -> str:
    """How often the run was interrupted, in words."""
    steps, backs = found["skipped_steps"], found["rollbacks"]
    words = [
        f"{steps:,} step{'s' * (steps != 1)} skipped by the guard" if steps else "No step skipped",
        f"went back to a checkpoint {backs} time{'s' * (backs != 1)}" if backs else "no rollback",
    ]
    return f'<p class="soft">{escape(", ".join(words))}.</p>'


def _time(found: dict[str, Any]) -> str:
    account = found["wall_seconds"]
    if account is None:
        return ""
    total = max(sum(account.values()), 1e-9)
    parts = [
        (PHASES.get(name, name), seconds / total,
         f"{in_units(seconds, SECONDS)}, {seconds / total:.1%}")
        for name, seconds in sorted(account.items(), key=lambda item: -item[1])
        if seconds >= 0.0005 * total
    ]  # fmt: skip
    return figure(
        bars(parts),
        f"Wall time from the first start to the last sign of life: {duration(total / 3600)}. "
        f"Goodput, the share of steps that count, is {found['goodput']:.1%}.",
    )


def _evaluations(folder: Path) -> str:
    lines, tasks = [], []
    for name, one in read_evaluations(folder).items():
        lines.append(_scores(f"this model, step {one['step']:,}", name, one))
        for trained_on, baseline in (one.get("ngram") or {}).items():
            who = (
                f"{baseline['order']}-gram Kneser-Ney, {trained_on} "
                f"({short(baseline['trained_tokens'])} tokens)"
            )
            lines.append(_scores(who, name, baseline))
        for task, figures in one["tasks"].items():
            tasks += [[task, figure_name, f"{value:.4g}"] for figure_name, value in figures.items()]
    if not lines:
        return ""
    head = ["Model", "Text", "Bits per byte #", "Loss, nats/token #", "Tokens #"]
    extra = table(tasks, ["Task", "Figure", "Value #"]) if tasks else ""
    return table(lines, head) + extra


def _scores(who: str, text: str, one: dict[str, Any]) -> list[str]:
    return [who, text, f"{one['bits_per_byte']:.4f}", f"{one['loss']:.4f}", f"{one['tokens']:,}"]


def _samples(folder: Path) -> str:
    kept = read_samples(folder)
    if kept is None:
        return ""
    texts = "".join(
        f"<pre><b>{escape(one['prompt'])}</b>{escape(one['text'])}</pre>" for one in kept["samples"]
    )
    return f'<p class="soft">Step {kept["step"]:,}, {escape(kept["how"])}.</p>{texts}'


def _energy(kwh: float) -> str:
    return in_units(kwh, ENERGY)
