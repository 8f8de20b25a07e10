"""What the launcher's modules see in place of the machine that they run on."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import llm_jax.launch.agent as agent_module
from llm_jax.launch import checks, mount, watch
from simulated.clock import Threading, Time, World
from simulated.trainer import SimulatedTrainer


@contextlib.contextmanager
def replaced(world: World) -> Iterator[None]:
    """The launcher's modules with virtual time, simulated trainers and no machine below them."""
    seams: list[tuple[Any, str, Any]] = [
        (agent_module, "Trainer", SimulatedTrainer),
        (agent_module, "kernel_kills", lambda: 0),
        (checks, "check_devices", lambda: None),
        (checks, "own_address", lambda spec: "10.0.0.1"),
        (checks, "free_port", lambda address: 8476),
        (mount, "check_mounts", lambda run, folder, root: None),
        (watch, "sys", SimpleNamespace(stdout=io.TextIOWrapper(io.BytesIO()))),
    ]
    for name, module in list(sys.modules.items()):
        if name.startswith("llm_jax.launch."):
            for attribute, real, stand_in in (
                ("time", time, Time(world)),
                ("threading", threading, Threading(world)),
            ):
                if getattr(module, attribute, None) is real:
                    seams.append((module, attribute, stand_in))
    before = [(module, name, getattr(module, name)) for module, name, _ in seams]
    for module, name, value in seams:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
