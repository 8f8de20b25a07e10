"""Where metrics go: the terminal, `metrics.jsonl`, TensorBoard, W&B, and a plot of the loss."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llm_jax.config import ConfigError, RunConfig, require_shape, to_dict
from llm_jax.runs.files import replacing, write_text
from llm_jax.runs.json_lines import read_records
from llm_jax.runs.metric_names import BITS_PER_BYTE_OF
from llm_jax.runs.scores import score_curves
from llm_jax.train.board import FLUSH_SECONDS, Board

METRICS_FILE = "metrics.jsonl"
Record = dict[str, Any]


class Log:
    """Writes each record to every sink. With several processes, only process 0 writes.

    A record is a flat dict with `split` ("train", "validation", "task", "save", or "skipped" for a
    step that the guard did not take), `step`, `tokens` and figures.

    Args:
      listen: called with each record too.
    """

    def __init__(
        self, config: RunConfig, quiet: bool, listen: Callable[[Record], None] | None = None
    ) -> None:
        self._config, self._quiet, self._listen, self._opened = config, quiet, listen, 0.0
        self._console = Console(stderr=True, highlight=False)

    def open(self, start: int) -> None:
        """Opens the sinks of a run that resumes after step `start`. Before this, only `say` works.

        Records of later steps, from an earlier start, are deleted.
        """
        if self._quiet:
            return
        config, out = self._config, Path(self._config.out)
        forget_after(out / METRICS_FILE, start)
        self._path = out / METRICS_FILE
        self._file = self._path.open("a", encoding="utf-8")
        self._opened = time.monotonic()
        self._board = Board(out / "tensorboard", start)
        self._wandb = WandB(config) if config.wandb else None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("training", total=config.steps, completed=start)
        self._progress.start()

    def say(self, sentence: str) -> None:
        if self._quiet:
            return
        self._console.print(sentence, soft_wrap=True, markup=False)

    def write(self, record: dict[str, Any], line: str) -> None:
        """Stores `record`, and prints `line`, its readable form."""
        if self._quiet:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if time.monotonic() - self._opened > FLUSH_SECONDS:
            # On NFS and mounted buckets, others see what was written only once a file is closed.
            self._file.close()
            self._file = self._path.open("a", encoding="utf-8")
            self._opened = time.monotonic()
        self._board.write(record)
        if self._wandb:
            self._wandb.write(record)
        self.say(line)
        if self._listen:
            self._listen(record)

    def advance(self, step: int) -> None:
        if self._quiet:
            return
        self._progress.update(self._task, completed=step)

    def close(self) -> None:
        if self._quiet or not self._opened:
            return
        self._progress.stop()
        self._file.close()
        self._board.close()
        if self._wandb:
            self._wandb.close()


class WandB:
    """A Weights & Biases run in the project `config.wandb`; a resumed run continues it."""

    def __init__(self, config: RunConfig) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigError(
                f"wandb is {config.wandb!r}, but the package is not installed: run "
                "pip install 'llm-jax[wandb]'."
            ) from None
        out = Path(config.out).absolute()
        same = hashlib.sha256(f"{socket.gethostname()}:{out}".encode()).hexdigest()[:16]
        self._run = wandb.init(
            project=config.wandb,
            name=config.name,
            id=same,
            resume="allow",
            dir=out,
            config=to_dict(config),
        )
        # W&B's own step may only grow, but a resumed run measures some steps again.
        self._run.define_metric("*", step_metric="step")

    def write(self, record: dict[str, Any]) -> None:
        named = {f"{record['split']}/{k}": v for k, v in record.items() if isinstance(v, float)}
        self._run.log(named | {"step": record["step"], "tokens": record["tokens"]})

    def close(self) -> None:
        self._run.finish()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a `metrics.jsonl`; a last line cut off by a kill is left out.

    Raises:
      UserError: another line is not a record of a step.
    """
    if not path.is_file():
        return
    for where, record in read_records(path):
        require_shape(record, {"split": str, "step": int}, where)
        yield record


def forget_after(path: Path, step: int) -> None:
    """Drops the records of steps after `step`, which a resumed run will measure again."""
    kept = [record for record in read_metrics(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(r) + "\n" for r in kept))


def draw_curve(out: Path) -> Path:
    """Plots the loss curve of a run folder to `loss.png`, and returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    records = list(read_metrics(out / METRICS_FILE))
    scores = score_curves(records)
    panels = 2 if scores else 1
    figure, grid = pyplot.subplots(
        panels, squeeze=False, figsize=(8, 4.5 * panels), layout="constrained"
    )
    axes = grid[0, 0]
    of_text = any("bits_per_byte" in r for r in records)
    figure_name, label = ("bits_per_byte", "bits per byte") if of_text else ("loss", "loss")
    for split, color, marker in (("train", "#9bb7d4", ""), ("validation", "#c23b22", "o")):
        points = [(r["tokens"], r[figure_name]) for r in records if r["split"] == split]
        if points:
            axes.plot(
                *zip(*points, strict=True), label=split, color=color, marker=marker, ms=4, lw=1
            )
    held_out = [r for r in records if r["split"] == "validation"]
    for name in dict.fromkeys(
        name for r in held_out for name in r if name.startswith(BITS_PER_BYTE_OF)
    ):
        points = [(r["tokens"], r[name]) for r in held_out if name in r]
        source = name.removeprefix(BITS_PER_BYTE_OF)
        axes.plot(*zip(*points, strict=True), ".--", ms=3, lw=0.8, label=f"validation, {source}")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set(xlabel="tokens", ylabel=label, title=out.name)
    axes.grid(alpha=0.3)
    axes.legend()
    for name, curve in scores.items():
        grid[1, 0].plot(*zip(*curve, strict=True), "o-", ms=4, lw=1, label=name)
    if scores:
        grid[1, 0].xaxis.set_major_formatter(EngFormatter(sep=" "))
        grid[1, 0].set(xlabel="tokens", ylabel="score", ylim=(-0.02, 1.02))
        grid[1, 0].grid(alpha=0.3)
        grid[1, 0].legend()
    path = out / "loss.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    pyplot.close(figure)
    return path
