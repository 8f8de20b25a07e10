"""Formats of the files that hold a config, and what brings an older one up to today's.

A field that is renamed, moved or retired adds a function here, and the format becomes one more. A
file without a `format` has format 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_jax.config.errors import ConfigError, require

Raw = dict[str, Any]


def _plan_has_its_own_file(raw: Raw) -> Raw:
    """Format 1 held the planner's prediction in `plan`; `runs/plan_file.py` reads it there."""
    return {name: value for name, value in raw.items() if name != "plan"}


def _fewer_fields(raw: Raw) -> Raw:
    """Format 2 had three switches for biases, two fields for a ramp, and the micro-batches of a
    step in `optim`; it called the pieces of a pipeline micro-batches too."""
    model, data, optim, compute, parallel = (
        dict(raw[part]) if isinstance(raw.get(part), dict) else None
        for part in ("model", "data", "optim", "compute", "parallel")
    )
    if model is not None:
        named = {"qkv": "qkv_bias", "out": "out_bias", "mlp": "mlp_bias"}
        found = [name for name, field in named.items() if model.pop(field, False) is True]
        model |= {"biases": found} if found else {}
    if data is not None:
        first, steps = data.pop("ramp_from", None), data.pop("ramp_steps", 0)
        data |= {} if first is None else {"ramp": f"{first}:{steps}"}
    if optim is not None and "accumulate" in optim:
        compute = (compute or {}) | {"accumulate": optim.pop("accumulate")}
    if parallel is not None and "microbatches" in parallel:
        parallel["pieces"] = parallel.pop("microbatches")
    parts = {"model": model, "data": data, "optim": optim, "compute": compute, "parallel": parallel}
    return raw | {name: part for name, part in parts.items() if part is not None}


MIGRATIONS: dict[str, tuple[Callable[[Raw], Raw], ...]] = {
    "RunConfig": (_plan_has_its_own_file, _fewer_fields),
    "PlanRecord": (),
}
"""Name of a class → the functions that bring its format 1 to 2, its format 2 to 3, and so on."""


def format_of(cls: type) -> int | None:
    """The format that `cls` is written in; None if it is only ever a part of something else."""
    steps = MIGRATIONS.get(cls.__name__)
    return None if steps is None else len(steps) + 1


def too_new(subject: str, written: Any, newest: int) -> str | None:
    """The sentence about a file of a newer version; None if this one reads the format `written`.

    Args:
      subject: its beginning, such as "data/dataset.json has format".
    """
    if not isinstance(written, int) or written <= newest:
        return None
    return (
        f"{subject} {written}, and this version of llm_jax reads formats up to {newest}: install a "
        "newer version."
    )


def migrated(raw: Raw, cls: type, where: str) -> Raw:
    """The fields of `raw` as today's `cls` has them, without `format`.

    Raises:
      ConfigError: a newer version wrote it, or `format` is not a number from 1 on.
    """
    newest = format_of(cls)
    if newest is None:
        return raw
    written = raw.get("format", 1)
    require(
        isinstance(written, int) and not isinstance(written, bool) and written >= 1,
        f"{where}.format is {written!r}: it must be a whole number from 1 to {newest}.",
    )
    if problem := too_new(f"{where}.format is", written, newest):
        raise ConfigError(problem)
    fields = {name: value for name, value in raw.items() if name != "format"}
    for step in MIGRATIONS[cls.__name__][written - 1 :]:
        fields = step(fields)
    return fields
