"""Reads the losses for the fit of a law: from CSV files, or from run folders of `train`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import RunConfig, UserError, generative_of, read_config, read_text
from llm_jax.facts.recurrent_counts import sizes_of
from llm_jax.laws.law import Counts
from llm_jax.laws.run_losses import Runs
from llm_jax.runs.history import read_history
from llm_jax.runs.json_lines import read_records

LEAST = {"step": 0, "tokens": 0, "tokens_per_second": 1e-9}
"""Of figures that cannot have every value."""
COLUMNS = ("params", "tokens", "loss")


@dataclass(frozen=True)
class Curve:
    """One run: its size N, and its losses (nats per token) in the order of their tokens."""

    name: str
    params: float
    tokens: tuple[float, ...]
    loss: tuple[float, ...]


def finals(curves: Sequence[Curve]) -> Runs:
    """The last point of each run."""
    columns = [(c.params, c.tokens[-1], c.loss[-1]) for c in curves]
    return Runs(*np.array(columns, dtype=np.float64).reshape(-1, 3).T)


def read(paths: Iterable[Path], counts: Counts) -> list[Curve]:
    """The runs in CSV files and run folders, in the order given.

    Raises:
      UserError: a path is neither, or has no readable runs.
    """
    curves: list[Curve] = []
    for path in paths:
        if path.is_dir():
            curves.append(read_folder(path, counts))
        elif path.is_file():
            curves.extend(read_csv(path))
        else:
            raise UserError(f"There are no runs at {path}: give a CSV file or a run folder.")
    return curves


def read_csv(path: Path) -> list[Curve]:
    """The runs of a CSV file with columns `params,tokens,loss`.

    Each row is a run. With a fourth column `run`, rows of the same run form a curve.

    Raises:
      UserError: a column is missing, a value is not a finite number above 0, or the file is not
        CSV in UTF-8.
    """
    table = csv.DictReader(io.StringIO(read_text(path), newline=""))
    runs: dict[str, list[tuple[float, float, float]]] = {}
    try:
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise UserError(
                f"{path} has no column {missing[0]!r}: its first line must name params,tokens,loss."
            )
        for row in table:
            name = row.get("run") or f"line {table.line_num}"
            point = tuple(_number(row[c], path, table.line_num, c) for c in COLUMNS)
            runs.setdefault(name, []).append(point)  # type: ignore[arg-type]
    except csv.Error as error:
        raise UserError(f"{path}, line {table.line_num} is not CSV ({error}): repair it.") from None
    return [_curve(name, points) for name, points in runs.items()]


def _number(text: str | None, path: Path, line: int, column: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(
            f"{path}, line {line}: {column} is {text!r}, not a finite number above 0: fix or "
            "remove the row."
        )
    return value


def _curve(name: str, points: list[tuple[float, float, float]]) -> Curve:
    points = sorted(points, key=lambda point: point[1])
    if len({point[0] for point in points}) > 1:
        raise UserError(f"Run {name!r} has rows with different params: give each run its own name.")
    return Curve(name, points[0][0], tuple(p[1] for p in points), tuple(p[2] for p in points))


def read_folder(folder: Path, counts: Counts) -> Curve:
    """The run in a folder of `train`: the model of run.json, the validation losses of
    metrics.jsonl.

    Raises:
      UserError: a file is missing, or there is no finite validation loss.
      ConfigError: run.json is not a valid config.
    """
    config_file, metrics_file = folder / "run.json", folder / "metrics.jsonl"
    for file in (config_file, metrics_file):
        if not file.is_file():
            raise UserError(f"{folder} is not a run folder: it has no {file.name}.")
    config = read_config(config_file, RunConfig)
    model = generative_of(config.model, "A scaling law")
    parent = read_history(folder, config).parent
    if parent:
        raise UserError(
            f"{folder} began with the weights of {parent['run']}, so its tokens do not account for "
            "its loss: leave it out."
        )
    size = sizes_of(model)[counts]
    points = [point for point in validation_losses(metrics_file) if point[0] > 0]
    if not points:
        raise UserError(f"{metrics_file} has no validation loss: train the run further first.")
    return _curve(folder.name, [(float(size), tokens, loss) for tokens, loss in points])


def validation_losses(metrics: Path) -> list[tuple[float, float]]:
    """(tokens, loss) of each evaluation. If a step has several lines, after a resume, the last one
    counts.

    Raises:
      UserError: a loss is not a finite number.
    """
    by_step: dict[int, tuple[float, float]] = {}
    for record in records(metrics, "validation"):
        by_step[record["step"]] = (float(record["tokens"]), float(record["loss"]))
    return list(by_step.values())


def records(metrics: Path, split: str, *figures: str) -> list[dict[str, Any]]:
    """The records of `split` in a `metrics.jsonl`, in order.

    A damaged last line is left out: a kill can cut it off.

    Raises:
      UserError: the file cannot be read, a line before the last is not a JSON object, or a record
        about `split` has no finite `step`, `tokens` or `loss`, or none of another of `figures`.
    """
    found = []
    for where, record in read_records(metrics):
        if record.get("split") == split:
            _check_figures(record, ("step", "tokens", "loss", *figures), where)
            found.append(record)
    return found


def _check_figures(record: dict[str, Any], names: Iterable[str], where: str) -> None:
    for name in names:
        value, least = record.get(name), LEAST.get(name, -math.inf)
        number = value if isinstance(value, int | float) and value is not True else math.nan
        if not (math.isfinite(number) and number >= least):
            raise UserError(
                f"{where}: {name} is {value!r}, not a finite number"
                f"{'' if least == -math.inf else f' of at least {least:g}'}: repair the file, or "
                "leave out this run."
            )
