"""What your own runs say of a chip's speed: a factor on the step time, and a narrower interval.

`plan --calibrate RUN` compares a run's measured steps with the planner's, and keeps the ratio in a
file of yours (`speeds.json`). The next plan for that chip uses it, and says so. The published runs
are the prior: one run of yours moves the figure most of the way, several narrow the interval.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from llm_jax.config import RunConfig, UserError, decoder_of, read_config, read_json
from llm_jax.config.wording import counted
from llm_jax.facts.calibration import calibration
from llm_jax.facts.counts import token_flops
from llm_jax.facts.hardware import Chip
from llm_jax.laws.run_curves import records
from llm_jax.plan.machines import Machine
from llm_jax.plan.memory import layout_of
from llm_jax.plan.roofline import step_time
from llm_jax.runs.files import write_text
from llm_jax.runs.places import run_file

RUN_NOISE = 0.05
"""Standard deviation of ln(seconds) between runs on one machine that are alike."""
CPU_PRIOR = 0.15
"""The same between the planner and a CPU, before any run (benchmarks/plan_step_time.py)."""
Z = 1.645
"""Standard deviations on each side that hold 90%."""
FARTHEST = 7.0
"""Of |ln(measured/predicted)|: a factor of 1,100. Beyond it the run was on other chips."""
WARM_UP = 2
"""First records of a run that are left out: they hold caches that fill."""


@dataclass(frozen=True)
class OwnSpeed:
    """What your runs say of one chip."""

    factor: float
    """Measured step time over the planner's."""
    interval: float
    """Half of the 90% prediction interval of ln(seconds)."""
    runs: int


def file() -> Path:
    """Where the ratios are kept: by chip, then by run."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "llm_jax" / "speeds.json"


def own_speed(chip: Chip) -> OwnSpeed | None:
    """What is kept for `chip`; None if there is nothing."""
    errors = [*_kept().get(chip.name, {}).values()]
    if not errors:
        return None
    prior = (calibration().of(chip).interval / Z or CPU_PRIOR) ** -2
    precision = prior + len(errors) * RUN_NOISE**-2
    mean = sum(errors) * RUN_NOISE**-2 / precision
    return OwnSpeed(math.exp(mean), Z * math.hypot(precision**-0.5, RUN_NOISE), len(errors))


def learn(folders: list[Path], chip: Chip, chips: int) -> list[dict[str, Any]]:
    """Compares the runs with the planner, and keeps what they say of `chip`.

    Args:
      chips: number of chips that the runs used.

    Returns:
      For each run: `run`, `predicted` and `measured` seconds per step, and their `ratio`.

    Raises:
      UserError: a folder is not a run, or its steps were not measured.
    """
    rows = [_compared(folder, chip, chips) for folder in folders]
    kept = _kept()
    mine = kept.get(chip.name, {}) | {row["run"]: math.log(row["ratio"]) for row in rows}
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(kept | {chip.name: mine}, indent=1) + "\n")
    return rows


def _kept() -> dict[str, dict[str, float]]:
    path = file()
    if not path.is_file():
        return {}
    found = read_json(path)
    numbers = isinstance(found, dict) and all(
        isinstance(runs, dict)
        and all(isinstance(error, float) and abs(error) < FARTHEST for error in runs.values())
        for runs in found.values()
    )
    if not numbers:
        raise UserError(f"{path} does not hold speeds of runs: delete it, and calibrate again.")
    return found


def _compared(folder: Path, chip: Chip, chips: int) -> dict[str, Any]:
    config = read_config(run_file(folder), RunConfig)
    measured = _measured(folder, config)
    predicted = predicted_seconds(config, chip, chips)
    if abs(math.log(measured / predicted)) >= FARTHEST:
        raise UserError(
            f"The steps of {str(folder)!r} took {measured:.3g} s, and {predicted:.3g} s are "
            f"planned on {counted(chips, f'{chip.name} chip')}: give the --chip and --chips of "
            "the run."
        )
    run = str(folder.absolute())
    return {
        "run": run, "predicted": predicted, "measured": measured, "ratio": measured / predicted
    }  # fmt: skip


def _measured(folder: Path, config: RunConfig) -> float:
    """Median seconds per step that the run's metrics hold."""
    file = folder / "metrics.jsonl"
    steps = records(file, "train", "tokens_per_second") if file.is_file() else []
    rates = [step["tokens_per_second"] for step in steps]
    if len(rates) <= WARM_UP:
        raise UserError(
            f"{str(folder)!r} has {len(rates)} measured steps: a calibration takes more than "
            f"{WARM_UP}."
        )
    return config.batch_tokens / median(rates[WARM_UP:])


def predicted_seconds(config: RunConfig, chip: Chip, chips: int) -> float:
    """The planner's seconds per step of a run, on the mesh of its config.

    Raises:
      UserError: the chip has no slices of that many chips, or the mesh does not use them all.
    """
    parallel, devices = config.parallel, chips * chip.devices_per_chip
    slices = parallel.replica if chip.torus else max(1, chips // chip.max_slice_chips)
    piece = next((one for one in chip.slices if one.chips * slices == chips), None)
    if piece is None:
        raise UserError(f"No {slices} slices of {chip.name} have {chips} chips together.")
    axes = ("replica", "fsdp", "expert", "context", "tensor", "pipeline")
    least = math.prod(getattr(parallel, axis) for axis in axes)
    if devices % least:
        raise UserError(
            f"--chips is {chips}, but the run's mesh needs a multiple of {least} devices."
        )
    layout = layout_of(config, devices)
    machine = Machine(chip, piece, slices)
    model = decoder_of(config.model, "A plan")
    flops = token_flops(model, config.data.seq_len)
    return step_time(
        model, flops, chip, machine.piece, slices, layout, config.batch_tokens
    ).expected
