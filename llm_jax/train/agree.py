"""The processes of a run agree on what they were started with, before anything is spent."""

from __future__ import annotations

import json
from typing import Any

import jax

from llm_jax.config import ConfigError, RunConfig, require, to_dict
from llm_jax.train import distributed
from llm_jax.train.run_folder import changed_fields, in_words

OWN = ("run.out", "run.data.path", "run.log_every", "run.wandb", "run.profile")
"""Fields that each process may have its own of: places, and what process 0 alone does."""


def require_agreement(config: RunConfig, init: str | None, branch: str | None) -> None:
    """Raises an error in all processes if one of them could not start, or was started otherwise.

    Args:
      init, branch: as of `train`.

    Raises:
      PeerFailed: another process has failed before (`distributed.tell`), or differs from process 0.
      ConfigError: this one differs from process 0.
    """
    distributed.all_pass(lambda: None)
    ours = {**to_dict(config), "--init": init, "--branch": branch}
    ours = json.loads(json.dumps(ours))
    first = json.loads(distributed.first_says(json.dumps(ours)))
    distributed.all_pass(lambda: _require_same(first, ours))


def _require_same(first: dict[str, Any], ours: dict[str, Any]) -> None:
    changed = changed_fields(_without_places(first), _without_places(ours), "run")
    changed = {
        name.replace("run.--", "--"): pair for name, pair in changed.items() if name not in OWN
    }
    if changed:
        raise ConfigError(
            f"Process {jax.process_index()} was started with another config than process 0 "
            f"({in_words(changed)}): start all processes with the same config and flags."
        )


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the places of a mixture's sources."""
    mixture = config["data"]["mixture"]
    if mixture is None:
        return config
    sources = [{**source, "path": ""} for source in mixture["sources"]]
    return config | {"data": config["data"] | {"mixture": {**mixture, "sources": sources}}}


def require_one_folder(out: str, is_run: bool) -> None:
    """Raises `ConfigError` in all processes if only some of them see the run in `out`."""
    seen = set(distributed.all_say("a run" if is_run else "none"))
    require(
        len(seen) == 1,
        f"run.out is {out}, where some processes see a run and others do not: choose an `out` on "
        "storage that all hosts share.",
    )


def require_one_text(fingerprint: str) -> None:
    """Raises `ConfigError` in all processes if one of them reads other data than process 0."""
    every = distributed.all_say(fingerprint)
    for number, other in enumerate(every):
        require(
            other == every[0],
            f"Process {number} reads other data than process 0 (fingerprint {other[:12]}, not "
            f"{every[0][:12]}): give all hosts the same dataset.",
        )
