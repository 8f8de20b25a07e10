"""What `llm-jax plan` predicted for a run: a file beside the run's config.

`run.json` has `plan.json` beside it, any other `name.json` has `name.plan.json`. `train` copies the
prediction into the run's folder, and `report` compares the run with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jax.config import from_dict, json_file, read_json
from llm_jax.config.errors import positive

PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What `llm-jax plan` predicted for a run."""

    params: int
    """Parameters of the planned model."""
    tokens: int
    """Training tokens of the plan. If `params` or `tokens` of the run changed since, the
    prediction does not apply."""
    step_seconds: float
    """Expected seconds per step, between `step_seconds_low` and `step_seconds_high`."""
    step_seconds_low: float
    """Low end of the expected range."""
    step_seconds_high: float
    """High end of the expected range."""
    hours: float
    """Wall time with restarts."""
    machine: str
    """Name of the machine that the plan is for."""
    usd: float | None = None
    """Cost in US dollars."""
    kwh: float | None = None
    """Energy with the data centre's, in kWh."""
    law: str | None = None
    """Scaling law that the loss comes from."""
    loss: float | None = None
    """Validation loss in nats per token. None where the law predicts no loss."""
    loss_low: float | None = None
    """Low end of the loss's 90% interval."""
    loss_high: float | None = None
    """High end of the loss's 90% interval."""
    law_text: str | None = None
    """Text that the law was fitted on, if it is not the run's text or is unknown."""

    def __post_init__(self) -> None:
        seconds = ("step_seconds", "step_seconds_low", "step_seconds_high")
        positive("plan", self, "params", "tokens", *seconds, "hours", most=math.inf)


def plan_file(config: Path) -> Path:
    """Where the prediction for the run in the JSON file `config` is."""
    return config.with_name(PLAN if config.name == "run.json" else f"{config.stem}.plan.json")


def plan_named(reference: str) -> PlanRecord | None:
    """The prediction for the run that a CONFIG names (see `load`); None for a recipe."""
    file = json_file(reference)
    return None if file is None else read_plan(file)


def read_plan(path: str | Path) -> PlanRecord | None:
    """The prediction for the run in a JSON file, or in a run's folder; None if nobody planned it.

    Raises:
      ConfigError: the prediction has an unknown key, a missing key or a wrong type.
      UserError: a file cannot be read.
    """
    config = Path(path) / "run.json" if Path(path).is_dir() else Path(path)
    if not config.is_file():
        return None
    file = plan_file(config)
    return plan_of(read_json(config), read_json(file) if file.is_file() else None)


def plan_of(run: Any, plan: Any) -> PlanRecord | None:
    """The prediction in the JSON value `plan`; if that is None, the one that a `run` of format 1
    holds; None if it has none either."""
    if plan is None and isinstance(run, dict):
        plan = run.get("plan") if run.get("format", 1) == 1 else None
    return None if plan is None else from_dict(plan, PlanRecord, "plan")
