"""Compiles the train step of a config for TPUs that are not attached, and reads the result."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from llm_jax.config import RunConfig, UserError, decoder_of
from llm_jax.facts.counts import token_flops
from llm_jax.models.common.attend import attention_of
from llm_jax.models.common.quantize import require_library
from llm_jax.parallel.check import check_divisible
from llm_jax.parallel.mesh import BATCH_AXES, make_mesh, used_axes
from llm_jax.plan.machines import Machine
from llm_jax.plan.memory import HEADROOM, device_bytes, layout_of
from llm_jax.plan.roofline import step_time
from llm_jax.preflight import exchanges
from llm_jax.preflight.hlo import Program
from llm_jax.preflight.topology import devices
from llm_jax.train.state import abstract_state
from llm_jax.train.step import abstract_batch, compile_train_step

CLOCK = {"v4": 1.05e9, "v5e": 1.5e9, "v5p": 1.75e9}
"""Clock rate in Hz, from the published peak and number of 128 × 128 matrix units of the chip (TPU
documentation)."""
LONG = 60.0
"""A compile that is expected to take longer than this, in seconds, is announced."""
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def measure(config: RunConfig, machine: Machine) -> dict[str, Any]:
    """What `llm-jax preflight` reports; see its documentation for the fields.

    Raises:
      UserError: the TPU compiler is not installed.
      ConfigError: the mesh does not fill the machine, or does not divide what it splits.
    """
    mesh = make_mesh(config.parallel, devices(machine))
    check_divisible(config, mesh)
    require_library(config.compute)
    expected = expected_seconds(config)
    if expected > LONG:
        print(
            f"Compiling {config.name} for {machine.name} takes about {expected / 60:.0f} minutes.",
            file=sys.stderr,
            flush=True,
        )
    attention = attention_of(config, mesh, "tpu")
    capacity = int(machine.chip.hbm_bytes / machine.chip.devices_per_chip)
    found: dict[str, Any] = {
        "name": config.name,
        "topology": machine.name,
        "torus": machine.piece.topology,
        "slices": machine.slices,
        "chips": machine.chips,
        "devices": machine.devices,
        "mesh": used_axes(mesh),
        "batch": {"sequences": config.data.batch_size, "tokens": config.batch_tokens},
        "accumulate": config.compute.accumulate,
        "remat": config.compute.remat,
        "attention": attention.kind,
        "attention_reason": attention.reason,
        "compiler": list(config.compute.compiler),
        "hbm_capacity": capacity,
        "hbm_limit": int((1 - HEADROOM) * capacity),
        "planned_bytes": planned_bytes(config, mesh),
    }
    start = time.monotonic()
    try:
        compiled: Any = compile_train_step(config, mesh, np.ones(config.model.vocab_size, np.int32))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found["compile_seconds"] = time.monotonic() - start
        return found | too_large(str(error), argument_bytes(config, mesh))
    found["compile_seconds"] = time.monotonic() - start
    found["hbm_bytes"] = hbm_bytes(compiled)
    found["fits"] = found["hbm_bytes"]["peak"] <= found["hbm_limit"]
    return found | _program(compiled, config, machine, mesh)


def _program(compiled: Any, config: RunConfig, machine: Machine, mesh: Mesh) -> dict[str, Any]:
    """Collectives and times of the compiled step."""
    program = Program(compiled.as_text())
    found = exchanges.by_axes(program.collectives(), mesh)
    layout = layout_of(config, mesh.size)
    model = decoder_of(config.model, "preflight")
    rough = step_time(
        model,
        token_flops(model, config.data.seq_len),
        machine.chip,
        machine.piece,
        machine.slices,
        layout,
        config.batch_tokens,
    )
    comms = exchanges.seconds(found, machine, layout)
    busy = max(rough.math, rough.hbm)
    counts: dict[str, int] = {}
    for one in found:
        counts[one.kind] = counts.get(one.kind, 0) + one.count
    clock = CLOCK.get(machine.chip.name)
    cycles = program.estimated_cycles()
    return {
        "collectives": counts,
        "collectives_by_axis": [dataclasses.asdict(one) for one in found],
        "collective_bytes": sum(one.bytes for one in found),
        "step_seconds": [max(busy, comms), busy + comms],
        "roofline_seconds": {"math": rough.math, "hbm": rough.hbm, "collectives": comms},
        "xla": {
            "optimal_seconds": compiled.cost_analysis().get("optimal_seconds"),
            "cycles": cycles,
            "seconds": cycles / clock if clock else None,
        },
    }


def hbm_bytes(compiled: Any) -> dict[str, int]:
    """Bytes per device by part. Peak: arguments + output − aliased + temp + generated code."""
    stats = compiled.memory_analysis()
    parts = {
        "arguments": stats.argument_size_in_bytes,
        "output": stats.output_size_in_bytes,
        "aliased": stats.alias_size_in_bytes,
        "temp": stats.temp_size_in_bytes,
        "generated_code": stats.generated_code_size_in_bytes,
    }
    peak = sum(parts.values()) - 2 * parts["aliased"]
    return {"peak": peak, **parts}


def too_large(message: str, arguments: int) -> dict[str, Any]:
    """Bytes from the compiler's message about a program that does not fit.

    It says `Used 64.2G of 15.75G hbm`, or `required for HLO temporaries (60.76G) exceeds`. The
    second does not count the arguments, so they are added.
    """
    used = re.search(r"Used ([\d.]+)([KMGT]?) of ", message)
    temp = re.search(r"temporaries \(([\d.]+)([KMGT]?)\) exceeds", message)
    if used:
        parts = {"peak": int(float(used.group(1)) * UNITS[used.group(2)])}
    elif temp:
        size = int(float(temp.group(1)) * UNITS[temp.group(2)])
        parts = {"peak": arguments + size, "arguments": arguments, "temp": size}
    else:
        raise UserError(f"The TPU compiler ran out of memory: {message.splitlines()[0]}")
    return {"fits": False, "hbm_bytes": parts}


def argument_bytes(config: RunConfig, mesh: Mesh) -> int:
    """Bytes of the state and the batch on one device, before layouts pad them."""
    leaves = jax.tree.leaves((abstract_state(config, mesh), abstract_batch(config, mesh)))
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    )


def planned_bytes(config: RunConfig, mesh: Mesh) -> dict[str, int] | None:
    """The planner's prediction by part; None for a pipeline, of which it knows only a bound."""
    shape = mesh.shape
    if shape["pipeline"] > 1:
        return None
    shards = math.prod(shape[axis] for axis in BATCH_AXES)
    length = config.data.seq_len // shape["context"]
    micro = config.data.batch_size // config.compute.accumulate // shards * length
    model, chunk = decoder_of(config.model, "preflight"), config.compute.loss_chunk
    parts = device_bytes(model, layout_of(config, mesh.size), micro, chunk, config.optim)
    return {**parts, "total": sum(parts.values())}


def expected_seconds(config: RunConfig) -> float:
    """Expected compile time on two idle cores, from the measurements in docs/scale.md.

    The time is proportional to the number of layers in the program, because the compiler searches
    the tiles of each. A scan has one layer, or one period of the patterns. Dense layers
    before the layers with experts are a second scan. A layer with experts takes a third longer.
    """
    model = decoder_of(config.model, "preflight")
    moe = model.moe
    bodies = model.layer_period if config.compute.scan_layers else model.num_layers
    layer = 90 if model.d_model >= 2048 else 25 if model.d_model >= 1024 else 5
    if moe is None:
        return 15 + bodies * layer
    return 15 + (bodies * 4 / 3 + (moe.dense_layers > 0)) * layer
