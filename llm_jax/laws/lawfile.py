"""Law files: fitted laws as versioned JSON. `fit` writes them, and `plan --law` reads them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from llm_jax.config import ConfigError, UserError, from_dict, nearest, read_json
from llm_jax.laws.hyperparameters import RULES
from llm_jax.laws.law import Fitted, Law, Parametric, Recipe
from llm_jax.laws.published import PRESETS, preset
from llm_jax.runs.files import write_text

VERSION = 1
VALUES = ("E", "A", "B", "alpha", "beta", "residual", "spread")
"""Numbers that the file and `Parametric` have alike."""
MAX_DRAWS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class LawFile:
    """The fields of a law file. `read` checks the lists."""

    version: int
    kind: str
    name: str
    source: str
    counts: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    residual: float
    """Standard deviation of ln L − ln L̂ over the runs of the fit."""
    flops: list
    params: list
    tokens: list
    """`flops`, `params`, `tokens`: smallest and largest value among the runs."""
    draws: list
    """Bootstrap draws [E, A, B, α, β]."""
    spread: float = 0.0
    """Standard deviation of ln L of later runs around the law; 0 in files that do not have it."""
    recipe: Recipe | None = None


def write(law: Parametric, path: Path) -> None:
    """Writes `law` to `path`, completely or not at all. It keeps at most 1,000 bootstrap draws."""
    step = max(1, -(-len(law.draws) // MAX_DRAWS))
    record = LawFile(
        version=VERSION,
        kind="parametric",
        name=law.name,
        source=law.source,
        counts=law.counts,
        **{key: getattr(law, key) for key in VALUES},
        flops=list(law.fitted.flops),
        params=list(law.fitted.params),
        tokens=list(law.fitted.tokens),
        draws=[[float(f"{x:.8g}") for x in draw] for draw in law.draws[::step]],
        recipe=law.recipe,
    )
    write_text(path, json.dumps(dataclasses.asdict(record)) + "\n")


def read(path: Path) -> Parametric:
    """The law in the file.

    Raises:
      UserError: it is not a law file, has another version, has unknown or missing fields, or has
        values that no law can have.
    """
    raw = read_json(path)
    version = raw.get("version") if isinstance(raw, dict) else None
    if version != VERSION:
        raise UserError(
            f"The law file {path} has version {version!r}, not {VERSION}: write it again with "
            "`llm-jax fit`."
        )
    try:
        record = from_dict(raw, LawFile, "law")
    except ConfigError as error:
        raise UserError(f"The law file {path} is not valid: {error}") from None
    _check(record, path)
    return Parametric(
        name=record.name,
        source=record.source,
        counts="all" if record.counts == "all" else "non-embedding",
        fitted=Fitted(tuple(record.flops), tuple(record.params), tuple(record.tokens)),
        **{key: getattr(record, key) for key in VALUES},
        draws=tuple(tuple(draw) for draw in record.draws),
        recipe=record.recipe,
    )


def _check(record: LawFile, path: Path) -> None:
    def refuse(sentence: str) -> None:
        raise UserError(f"The law file {path} is not valid: {sentence}")

    if record.kind != "parametric":
        refuse(f"law.kind is {record.kind!r}: only 'parametric' is known.")
    if record.counts not in ("all", "non-embedding"):
        refuse(f"law.counts is {record.counts!r}: choose 'all' or 'non-embedding'.")
    for key in ("A", "B", "alpha", "beta"):
        if getattr(record, key) <= 0:
            refuse(f"law.{key} is {getattr(record, key)}: it must be above 0.")
    for key in ("residual", "spread"):
        if getattr(record, key) < 0:
            refuse(f"law.{key} is {getattr(record, key)}: it must not be below 0.")
    for key in ("flops", "params", "tokens"):
        value = getattr(record, key)
        if not (_numbers(value, 2) and 0 < value[0] <= value[1]):
            refuse(f"law.{key} is {value!r}: give [smallest, largest], both above 0.")
    if record.recipe is not None and record.recipe.rule not in RULES:
        refuse(f"law.recipe.rule is {record.recipe.rule!r}: {nearest(record.recipe.rule, RULES)}")
    if not all(_numbers(draw, 5) for draw in record.draws):
        refuse("law.draws must hold lists of five numbers [E, A, B, alpha, beta].")


def _numbers(value: Any, length: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
    )


def load(reference: str) -> Law:
    """The preset with that name, or the law in that file.

    Raises:
      UserError: neither exists.
    """
    if reference in PRESETS:
        return PRESETS[reference]
    path = Path(reference)
    if path.suffix == ".json" or path.is_file():
        if not path.is_file():
            raise UserError(f"There is no law file {reference!r}: check the path.")
        return read(path)
    return preset(reference)
