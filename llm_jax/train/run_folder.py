"""The folder of a run: created by a new run, checked when it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from llm_jax.config import ConfigError, RunConfig, read_config, to_dict, to_json
from llm_jax.config.migrations import too_new
from llm_jax.data.tokenizers import Tokenizer, has_tokenizer
from llm_jax.runs import history
from llm_jax.runs.files import write_text
from llm_jax.runs.imported import inherit
from llm_jax.runs.plan_file import PLAN, PlanRecord, read_plan
from llm_jax.train import distributed

CHECKPOINT_FORMAT = 1
"""Of a checkpoint's items and its record; the config in the record has a format of its own."""


def check_folder(config: RunConfig, tokenizer: Tokenizer) -> RunConfig | None:
    """The config of the run in `config.out`, None if there is none yet. Nothing is written.

    Raises:
      ConfigError: the folder holds something else, or a run with another name, architecture,
        optimizer or tokenizer.
    """
    out = Path(config.out)
    if problem := unwritable(out, "run.out"):
        raise ConfigError(problem)
    if not (out / "run.json").is_file():
        if out.is_dir() and any(not _expected(path) for path in out.iterdir()):
            raise ConfigError(
                f"run.out is {config.out}, which is not empty and is not a run: choose another "
                "folder."
            )
        return None
    old = read_config(out / "run.json", RunConfig)
    if old.name != config.name:
        raise ConfigError(
            f"run.out is {config.out}, which belongs to run {old.name!r}, not {config.name!r}: "
            "choose another folder."
        )
    check_architecture(config, old, "has")
    if old.optim.kind != config.optim.kind and any(out.glob("checkpoints/*/opt")):
        raise ConfigError(
            f"optim.kind is {config.optim.kind!r}, but the run in {config.out} holds the state "
            f"of {old.optim.kind!r}: restore it, or choose another `out`."
        )
    if has_tokenizer(out):
        check_tokenizer(config.out, Tokenizer.load(out).sha256, tokenizer.sha256)
    return old


def unwritable(folder: Path, what: str) -> str | None:
    """Why checkpoints cannot be written to `folder`: TensorStore takes a backslash for a separator
    of folders, and would write elsewhere. `what` names it."""
    path = str(folder.absolute())
    if "\\" not in path:
        return None
    return (
        f"{what} is {path!r}, which has a backslash: checkpoints cannot be written there. Choose "
        "another folder."
    )


def claim_folder(
    config: RunConfig,
    plan: PlanRecord | None,
    tokenizer: Tokenizer,
    lines: list[history.Entry],
) -> None:
    """Makes `config.out` the folder of this run, and adds `lines` to its history.

    Args:
      plan: what was predicted for `config`; None: what the folder holds is kept.
    """
    out = Path(config.out)
    distributed.wait_for_all("the folder is checked")
    if jax.process_index() == 0:
        out.mkdir(parents=True, exist_ok=True)
        for line in lines:
            history.append(out, line)
        if plan := plan or read_plan(out):
            write_text(out / PLAN, to_json(plan))
        write_text(out / "run.json", to_json(config))
        if not has_tokenizer(out):
            tokenizer.save(out)
        for line in lines:
            if line.parent:
                inherit(Path(line.parent["run"]), out)
    distributed.wait_for_all("the folder is claimed")


def _expected(path: Path) -> bool:
    """Whether the folder of a new run may contain `path`: it comes from a launcher, a heartbeat,
    this start's claim, or a start that was killed."""
    ours = ("status.", "run.json.", PLAN, "writer.", ".writer.", history.FILE)
    return path.name == "launch" or path.name.removeprefix(".").startswith(ours)


def check_architecture(config: RunConfig, saved: RunConfig, verb: str) -> None:
    """Raises `ConfigError` unless both configs have the same model."""
    changed = changed_fields(to_dict(saved.model), to_dict(config.model), "run.model")
    if changed:
        raise ConfigError(
            f"The run in {config.out} {verb} another architecture ({in_words(changed)}): restore "
            "these fields, or choose another `out`."
        )


def check_format(record: dict[str, Any], what: str) -> None:
    """Raises `ConfigError` if a newer version wrote the record of a checkpoint, which is `what`."""
    if problem := too_new(f"{what} has format", record.get("format"), CHECKPOINT_FORMAT):
        raise ConfigError(problem)


def check_tokenizer(out: str, saved: str, now: str) -> None:
    """Raises `ConfigError` unless both SHA-256 digests are the same."""
    if saved != now:
        raise ConfigError(
            f"The run in {out} was trained with another tokenizer ({saved[:12]}, now {now[:12]}): "
            "use the dataset it was trained on, or choose another `out`."
        )


def changed_fields(old: dict[str, Any], new: dict[str, Any], where: str) -> dict[str, list[Any]]:
    """The fields in which two configs as dicts differ: `where.field` → [old, new]."""
    found: dict[str, list[Any]] = {}
    for name in old.keys() | new.keys():
        a, b, path = old.get(name), new.get(name), f"{where}.{name}"
        if isinstance(a, dict) and isinstance(b, dict):
            found |= changed_fields(a, b, path)
        elif a != b and _as_json(a) != _as_json(b):
            found[path] = [a, b]
    return dict(sorted(found.items()))


def _as_json(value: Any) -> Any:
    """The value as JSON stores it: a tuple as a list."""
    return list(value) if isinstance(value, tuple) else value


def in_words(changed: dict[str, list[Any]]) -> str:
    return ", ".join(f"{name} {a!r} → {b!r}" for name, (a, b) in changed.items())
