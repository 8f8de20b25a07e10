"""Results of earlier compiles, by everything that decides the program."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import llm_jax
from llm_jax.config import RunConfig, to_dict
from llm_jax.plan.layout import Machine
from llm_jax.preflight.measure import measure
from llm_jax.preflight.topology import require_compiler
from llm_jax.runs.files import write_text

SOURCES = ("config", "parallel", "model", "train", "preflight", "plan")
NOT_COMPILED = ("name", "out", "seed", "log_every", "checkpoint", "eval", "plan")
"""Fields of a run that its train step does not depend on."""


def measured(config: RunConfig, machine: Machine) -> dict[str, Any]:
    """`measure`, or what it found before for the same config, topology, versions and code."""
    require_compiler()
    file = folder() / f"{key(config, machine)}.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8")) | {"name": config.name, "cached": True}
    found = measure(config, machine) | {"cached": False}
    write_text(file, json.dumps(found, indent=2))
    return found


def folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "llm_jax" / "preflight"


def key(config: RunConfig, machine: Machine) -> str:
    raw = {name: x for name, x in to_dict(config).items() if name not in NOT_COMPILED}
    raw["data"] = {name: raw["data"][name] for name in ("seq_len", "batch_size")}
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu", "optax")]
    parts = [raw, machine.name, machine.piece.topology, versions, _code()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _code() -> str:
    """Hash of the package's files that a program or its report is made by."""
    root = Path(llm_jax.__file__).parent
    files = [
        file
        for name in SOURCES
        for file in sorted([root / name] if (root / name).is_file() else (root / name).glob("*.py"))
    ]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
