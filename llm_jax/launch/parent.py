"""The run that a job's run begins with or branches from, looked at before anything is created."""

from __future__ import annotations

import re
from pathlib import Path

from llm_jax.config import RunConfig, UserError, from_dict, parse_json, require
from llm_jax.launch.dataset import SHARED
from llm_jax.launch.folder import open_folder
from llm_jax.launch.spec import JobSpec
from llm_jax.runs.places import folder_and_step

IN_BUCKET = re.compile(r"(gs://.+?)/*(?:@(\d+)|/checkpoints/(\d+)/*)?")


def split(place: str) -> tuple[str, int | None]:
    """The run's folder, absolute or in a bucket, and the step; None: the newest."""
    if found := IN_BUCKET.fullmatch(place):
        step = found[2] or found[3]
        return found[1], int(step) if step else None
    folder, number = folder_and_step(place)
    return str(folder), number


def whole(place: str) -> str:
    """`place` as hosts can read it, wherever they are started."""
    return place if place.startswith("gs://") else str(Path(place).absolute())


def words(spec: JobSpec) -> list[str]:
    """The flag of `llm-jax train` and the run that it names; none if the run begins anew."""
    flags = {"--init": spec.init, "--branch": spec.branch}
    return next(([flag, place] for flag, place in flags.items() if place), [])


def check_place(spec: JobSpec) -> None:
    """Raises `ConfigError` unless the hosts can reach the run; looks at its name alone."""
    if spec.backend.kind in SHARED or not (begin := words(spec)):
        return
    flag, place = begin
    require(
        place.startswith("gs://"),
        f"{flag} is {place!r}, which hosts of the {spec.backend.kind} back end cannot reach: "
        "copy the run with `gcloud storage cp --recursive`, and name it as gs://BUCKET/RUN.",
    )


def parent_config(place: str) -> RunConfig:
    """The config of the run at `RUN` or `RUN@STEP`.

    Raises:
      UserError: there is no run, no such checkpoint, or it cannot be read.
    """
    address, step = split(place)
    try:
        folder = open_folder(address)
        raw = folder.read("run.json")
        saved = folder.names(f"checkpoints/{step}" if step is not None else "checkpoints")
    except OSError as error:
        raise UserError(f"The run {address!r} cannot be read: {error}.") from None
    if raw is None:
        raise UserError(f"There is no run in {address!r}: give the `out` folder of a run.")
    if not saved:
        which = f"checkpoint {step}" if step is not None else "checkpoint"
        raise UserError(f"The run {address!r} has no {which}: name another run, or another step.")
    return from_dict(parse_json(raw, f"{address}/run.json"), RunConfig)
