"""The folder of a run: made by the run that begins, checked by the one that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from llm_jax.config import ConfigError, RunConfig, from_json, to_dict, to_json
from llm_jax.runs.files import write_bytes, write_text
from llm_jax.train import distributed
from llm_jax.train.manifest import file_sha256


def claim_folder(config: RunConfig, tokenizer_path: Path) -> list[str]:
    """Makes `config.out` the folder of this run, or checks that it is; returns what has changed.

    Raises:
      ConfigError: the folder holds something else, or a run of another name, architecture
        or tokenizer.
    """
    out = Path(config.out)
    record = out / "run.json"
    changes: list[str] = []
    if record.is_file():
        old = from_json(record.read_text(encoding="utf-8"), RunConfig)
        if old.name != config.name:
            raise ConfigError(
                f"run.out is {config.out}, which belongs to run {old.name!r}, not {config.name!r}: "
                "choose another folder."
            )
        changes = differences(old, config, "run")
        model = [change for change in changes if change.startswith("run.model.")]
        if model:
            raise ConfigError(
                f"The run in {config.out} has another architecture ({'; '.join(model)}): restore "
                "these fields, or choose another `out`."
            )
        if old.optim.kind != config.optim.kind and any(out.glob("checkpoints/*/opt")):
            raise ConfigError(
                f"optim.kind is {config.optim.kind!r}, but the run in {config.out} holds the state "
                f"of {old.optim.kind!r}: restore it, or choose another `out`."
            )
        theirs = out / "tokenizer.model"
        if theirs.is_file():
            check_tokenizer(config.out, file_sha256(theirs), file_sha256(tokenizer_path))
    elif out.is_dir() and any(not _expected(path) for path in out.iterdir()):
        raise ConfigError(
            f"run.out is {config.out}, which is not empty and holds no run: choose another folder."
        )
    distributed.wait_for_all("the folder is checked")
    if jax.process_index() == 0:
        out.mkdir(parents=True, exist_ok=True)
        write_text(record, to_json(config))
        if not (out / "tokenizer.model").exists():
            write_bytes(out / "tokenizer.model", tokenizer_path.read_bytes())
    distributed.wait_for_all("the folder is claimed")
    return changes


def _expected(path: Path) -> bool:
    """Whether a launcher, the sign of life that it watches, this start's claim, or a start that was
    killed, put this into the run's folder."""
    ours = ("status.", ".status.", ".run.json.", ".writer.", "..writer.")
    return path.name == "launch" or path.name.startswith(ours)


def check_tokenizer(out: str, saved: str, now: str) -> None:
    """Raises `ConfigError` unless both SHA-256 digests are the same."""
    if saved != now:
        raise ConfigError(
            f"The run in {out} was trained with another tokenizer ({saved[:12]}, now {now[:12]}): "
            "use the dataset it was trained on, or choose another `out`."
        )


def differences(old: Any, new: Any, where: str) -> list[str]:
    """Fields in which two configs of one class differ, as `where.field old → new`."""
    a, b = to_dict(old), to_dict(new)
    found: list[str] = []
    for name in a:
        if (
            isinstance(a[name], dict)
            and isinstance(b[name], dict)
            and a[name].keys() == b[name].keys()
        ):
            inner = [
                f"{where}.{name}.{k} {v!r} → {b[name][k]!r}"
                for k, v in a[name].items()
                if v != b[name][k]
            ]
            found += inner
        elif a[name] != b[name]:
            found.append(f"{where}.{name} {a[name]!r} → {b[name]!r}")
    return found
