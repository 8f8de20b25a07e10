"""Runs that `ladder` and `data mix` plan once, keep in a file of their folder, and train one after
another."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_jax.commands.plan_mixture import mixture_of, text_of_mixture, with_mixture
from llm_jax.config import RunConfig, UserError, from_dict, read_json, to_dict, to_json
from llm_jax.config.wording import counted
from llm_jax.runs.files import write_text


def text_of(args: argparse.Namespace) -> Any:
    """The `Text` of --data or --mixture; what it lost when it was built is said."""
    from llm_jax.plan import dataset_text

    if bool(args.data) == bool(args.mixture):
        raise UserError("A ladder reads one text: give --data DIR or --mixture FILE.")
    source = dataset_text.read(args.data) if args.data else text_of_mixture(args.mixture)
    if source.lost:
        where, file = (
            (f"{args.data} was built", "its left_out.jsonl")
            if args.data
            else ("the datasets of the mixture were built", "their left_out.jsonl")
        )
        print(
            f"{counted(source.lost, 'document')} could not be used when {where}: see {file}.",
            file=sys.stderr,
        )
    return source


def reading(args: argparse.Namespace, config: RunConfig) -> RunConfig:
    """`config` reading --mixture, if that is given."""
    return with_mixture(config, mixture_of(args, None))


def runs_of(
    out: Path,
    asked: dict[str, Any],
    planned: Callable[[], Sequence[RunConfig]],
    what: str = "ladder",
) -> list[RunConfig]:
    """The runs in the folder `out` if it holds these, else those planned now, each in a folder of
    `out` with its own name.

    Args:
      asked: the settings that the runs follow from, as JSON values.
      what: name of the record in `out`, and of the runs in errors.

    Raises:
      UserError: the folder holds something else, or runs of other settings.
    """
    record = out / f"{what}.json"
    if record.is_file():
        return _recorded(record, asked, what)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {str(out)!r} is not empty and is not a {what}: choose another.")
    configs = [replace(config, out=str(out / config.name)) for config in planned()]
    asked_and_runs = {"asked": asked, "runs": [to_dict(config) for config in configs]}
    write_text(record, json.dumps(asked_and_runs, indent=2))
    return configs


def _recorded(record: Path, asked: dict[str, Any], what: str) -> list[RunConfig]:
    try:
        found = read_json(record)
        before, runs = found["asked"], [from_dict(raw, RunConfig) for raw in found["runs"]]
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{record} cannot be read ({error}): choose another --out.") from None
    changed = [f"{key} {before.get(key)!r} → {asked.get(key)!r}" for key in asked | before
               if before.get(key) != asked.get(key)]  # fmt: skip
    if changed:
        raise UserError(
            f"{record.parent} holds a {what} with other settings ({'; '.join(changed)}): give the "
            "same flags, or another --out."
        )
    return runs


def train(config: RunConfig, which: str) -> None:
    """Trains `config` in its own process, unless its folder holds the finished run.

    Raises:
      UserError: the run failed.
      KeyboardInterrupt: the run was interrupted, and has saved its state.
    """
    from llm_jax.report.outcome import finished

    if finished(Path(config.out), config.steps):
        print(f"{which}, {config.name}: already done", file=sys.stderr)
        return
    file = Path(config.out + ".json")
    write_text(file, to_json(config))
    print(f"{which}, {config.name}", file=sys.stderr, flush=True)
    # Standard output belongs to this verb's own result.
    child = subprocess.Popen(
        [sys.executable, "-m", "llm_jax", "train", str(file), "--json"],
        stdout=subprocess.DEVNULL,
    )
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.wait()  # the terminal interrupted it too: let it save
        raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise UserError(
            f"Run {config.name} failed with exit code {code} (the reason is above): "
            "fix it and run the same command again. Finished runs are kept."
        )
