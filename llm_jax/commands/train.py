"""Train a recipe or a run.json, or resume its run if the output folder already holds it.

  llm-jax train quickstart --steps 100 --optim.learning-rate 1e-3
  llm-jax train --init runs/first --out runs/second --data.path data/mine
  llm-jax train --branch runs/first@4000 --out runs/anneal --mixture anneal.json

CONFIG is the name or path of a recipe (configs/), a run.json, or the folder of a run. Every scalar
field has a flag. With --init or --branch, batch, optimizer kind and sequence length are those of
RUN where neither CONFIG nor a flag sets them; without CONFIG, everything is.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from llm_jax.commands import begin
from llm_jax.config import ModelConfig, RunConfig
from llm_jax.config.extras import require_packages
from llm_jax.facts.attached import maybe_accelerator
from llm_jax.runs.plan_file import plan_named

OVERRIDES = True
COMPILES = True
KEEP = 32 << 30
"""Largest amount of freed memory that glibc keeps, in bytes."""


def environment() -> dict[str, str]:
    """Variables that must be set at the start: on a CPU, they tell glibc to keep freed memory.

    XLA frees a step's temporaries and allocates them again in the next step. By default glibc gives
    them back to the kernel, which then hands out hundreds of thousands of zeroed 4 KiB pages per
    step. With these settings glibc keeps them, in huge pages (benchmarks/train_step.py).
    """
    cpu = os.environ.get("JAX_PLATFORMS") == "cpu" or not maybe_accelerator()
    tunables = {"hugetlb": 1, "mmap_threshold": KEEP, "trim_threshold": KEEP}
    value = ":".join(f"glibc.malloc.{name}={number}" for name, number in tunables.items())
    return {"GLIBC_TUNABLES": value} if cpu and sys.platform == "linux" else {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="recipe, run.json, or folder of a run"
    )
    begin.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    config = begin.config_of(args)
    if config.wandb:
        require_packages(f"wandb = {config.wandb!r}", "wandb", way_out="or leave --wandb out")
    from llm_jax.commands.training_tasks import check_tasks_of, task_scorer
    from llm_jax.convert.families import why_not_exportable
    from llm_jax.train import distributed
    from llm_jax.train.loop import train

    check_tasks_of(config)
    model = config.model
    if isinstance(model, ModelConfig) and (problem := why_not_exportable(model)):
        print(f"This run cannot be exported. {problem}", file=sys.stderr)

    result = train(
        config,
        plan=plan_named(args.config) if args.config else None,
        init=args.init,
        branch=args.branch,
        source=other_run(args.config, config) if args.config else None,
        tasks=task_scorer,
    )
    with distributed.leaving_at_once():
        distributed.leave(result["exit_code"])
    return result


def other_run(reference: str, config: RunConfig) -> Path | None:
    """The run that the config was taken from, if it has checkpoints and is not this run."""
    path = Path(reference)
    folder = path if path.is_dir() else path.parent
    trained = (folder / "run.json").is_file() and any((folder / "checkpoints").glob("[0-9]*"))
    named = path.is_dir() or path.name == "run.json"
    return (
        folder
        if trained and named and os.path.realpath(folder) != os.path.realpath(config.out)
        else None
    )


def text(result: dict[str, Any]) -> str:
    loss = "not evaluated"
    if result["loss"] is not None:
        loss = f"validation loss {result['loss']:.4f}"
        if result["bits_per_byte"] is not None:
            loss += f", {result['bits_per_byte']:.4f} bits per byte"
        for name, value in result["figures"].items():
            loss += f", {name} {value:.4f}"
    lines = [
        f"step {result['step']}: {loss}, {result['tokens']:,} tokens",
        f"checkpoint {result['checkpoint'] or 'none'}",
    ]
    if result["tokens_per_second"]:
        lines.insert(
            1,
            f"{result['tokens_per_second']:,.0f} tokens/s, "
            + (f"MFU {result['mfu']:.1%}, " if result["mfu"] is not None else "")
            + f"goodput {result['goodput']:.1%}",
        )
    total = sum(result["seconds"].values()) or 1.0
    shares = sorted(((s / total, name) for name, s in result["seconds"].items()), reverse=True)
    spent = ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.005)
    lines.append(f"time {total:,.0f} s: {spent}")
    return "\n".join(lines)
