"""A cache of compile results, keyed by everything that determines the program."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import llm_jax
from llm_jax.config import RunConfig, UserError, read_json, to_dict
from llm_jax.plan.machines import Machine
from llm_jax.preflight.measure import measure
from llm_jax.preflight.topology import require_compiler
from llm_jax.runs.files import keep

SOURCES = (
    "attention", "config", "data", "facts", "models", "objectives", "parallel", "plan",
    "preflight", "runs", "train",
)  # fmt: skip
"""Packages whose code determines the program or the report on it."""
LIBRARIES = ("jax", "jaxlib", "libtpu", "flax", "optax")
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
NOT_COMPILED = ("name", "out", "seed", "log_every", "checkpoint", "eval")
"""Fields of a run that its train step does not depend on."""


def measured(config: RunConfig, machine: Machine) -> dict[str, Any]:
    """The result of `measure`; cached for the same config, topology, versions and code."""
    require_compiler()
    file = folder() / f"{key(config, machine)}.json"
    try:
        return read_json(file) | {"name": config.name, "cached": True}
    except (UserError, TypeError):
        result = measure(config, machine) | {"cached": False}  # the file is missing or damaged
    keep(file, json.dumps(result, indent=2))
    return result


def folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "llm_jax" / "preflight"


def key(config: RunConfig, machine: Machine) -> str:
    raw = {name: x for name, x in to_dict(config).items() if name not in NOT_COMPILED}
    raw["data"] = {name: raw["data"][name] for name in ("seq_len", "batch_size")}
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    flags = [os.environ.get(name) for name in FLAGS]
    parts = [raw, machine.name, machine.piece.topology, versions, flags, code(SOURCES)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def code(packages: Iterable[str], root: Path = Path(llm_jax.__file__).parent) -> str:
    """Hash of names and contents of the Python files below these packages, at every level."""
    digest = hashlib.sha256()
    for file in sorted(path for name in packages for path in (root / name).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
