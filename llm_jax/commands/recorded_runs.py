"""Runs that `ladder` plans once, keeps in a file of its folder, and trains one after another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_jax.config import RunConfig, UserError, from_dict, read_json, to_dict, to_json
from llm_jax.config.wording import counted
from llm_jax.runs.files import write_text


def text_of(data: str) -> Any:
    """The `Text` of the dataset folder; what it lost when it was built is said."""
    from llm_jax.plan import dataset_text

    source = dataset_text.read(data)
    if source.lost:
        print(
            f"{counted(source.lost, 'document')} could not be used when {data} was built: "
            "see its left_out.jsonl.",
            file=sys.stderr,
        )
    return source


def runs_of(
    out: Path, asked: dict[str, Any], planned: Callable[[], Sequence[RunConfig]]
) -> list[RunConfig]:
    """The runs in the folder `out` if it holds these, else those planned now, each in a folder of
    `out` with its own name.

    Args:
      asked: the settings that the runs follow from, as JSON values.

    Raises:
      UserError: the folder holds something else, or runs of other settings.
    """
    record = out / "ladder.json"
    if record.is_file():
        return _recorded(record, asked)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {str(out)!r} is not empty and is not a ladder: choose another.")
    configs = [replace(config, out=str(out / config.name)) for config in planned()]
    asked_and_runs = {"asked": asked, "runs": [to_dict(config) for config in configs]}
    write_text(record, json.dumps(asked_and_runs, indent=2))
    return configs


def _recorded(record: Path, asked: dict[str, Any]) -> list[RunConfig]:
    try:
        found = read_json(record)
        before, runs = found["asked"], [from_dict(raw, RunConfig) for raw in found["runs"]]
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{record} cannot be read ({error}): choose another --out.") from None
    changed = [f"{key} {before.get(key)!r} → {asked.get(key)!r}" for key in asked | before
               if before.get(key) != asked.get(key)]  # fmt: skip
    if changed:
        raise UserError(
            f"{record.parent} holds a ladder with other settings ({'; '.join(changed)}): give the "
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
            f"Run {config.name} of the ladder failed with exit code {code} (the reason is above): "
            "fix it and run the same command again. Finished runs are kept."
        )
