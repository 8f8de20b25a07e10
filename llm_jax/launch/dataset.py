"""The dataset of a job, looked at before anything is created: on the hosts it would cost money."""

from __future__ import annotations

from collections.abc import Callable

from llm_jax.config import (
    ConfigError,
    RunConfig,
    UserError,
    check_vocabulary,
    parse_json,
    require,
)
from llm_jax.launch.folder import open_folder
from llm_jax.launch.mount import ROOT
from llm_jax.launch.spec import JobSpec, SkyPilot

SHARED = ("local", "slurm")
"""Back ends whose hosts see the files of this machine."""


def check_path(spec: JobSpec, run: RunConfig) -> None:
    """Raises `ConfigError` unless the hosts can reach the datasets; looks at their names alone."""
    if spec.trainer or spec.backend.kind in SHARED:
        return
    for name, path in run.data.folders.items():
        require(
            _address(path).startswith("gs://"),
            f"{_field(name)} is {path!r}, which hosts of the {spec.backend.kind} back end cannot "
            f"reach: copy the folder with `gcloud storage cp --recursive {path} gs://BUCKET/data/` "
            + (
                "and name the copy in the mixture."
                if name
                else "and name the copy with --data.path gs://BUCKET/data/FOLDER."
            ),
        )


def check_dataset(spec: JobSpec, run: RunConfig, say: Callable[[str], None]) -> None:
    """Makes sure that there are datasets, and that the model has their vocabulary.

    Args:
      say: hears of what could not be looked at.

    Raises:
      ConfigError: there is no dataset, or one of another vocabulary.
    """
    if spec.trainer:  # which may read something else
        return
    for name, path in run.data.folders.items():
        _check_one(spec, run, name, path, say)


def _check_one(
    spec: JobSpec, run: RunConfig, name: str, path: str, say: Callable[[str], None]
) -> None:
    address, field = _address(path), _field(name)
    try:
        raw = open_folder(address).read("dataset.json")
    except OSError as error:
        say(f"warning: could not look whether {address} holds a dataset: {error}")
        return
    require(
        raw is not None,
        f"{field} is {path!r}, where there is no dataset: make one with `llm-jax data build`, "
        + ("or change the mixture." if name else "or name another with --data.path FOLDER."),
    )
    try:
        vocab_size = int(parse_json(raw or b"", "dataset.json")["vocab_size"])
    except (UserError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{field} is {path!r}, whose dataset.json gives no vocab_size: build the dataset again."
        ) from None
    check_vocabulary(run, vocab_size)
    mounted = spec.out.removeprefix("gs://").partition("/")[0]
    bucket = address.removeprefix("gs://").partition("/")[0]
    if isinstance(spec.backend, SkyPilot) and bucket != mounted:
        say(
            f"warning: the SkyPilot file mounts gs://{mounted} alone: add gs://{bucket} to its "
            "file_mounts"
        )


def _field(name: str) -> str:
    """What errors call the path of a dataset, which has this name in a mixture."""
    return f"data.mixture's source {name!r}" if name else "data.path"


def _address(path: str) -> str:
    """A path below the hosts' mount as the bucket's address; any other as it is."""
    inside = path.removeprefix(ROOT + "/")
    return path if inside == path else f"gs://{inside}"
