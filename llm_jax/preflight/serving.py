"""Compiles the programs of `serve` for TPUs that are not attached: do weights and cache fit?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from llm_jax.config import ParallelConfig, RunConfig, UserError, generative_of
from llm_jax.config.wording import counted
from llm_jax.infer.decoder import compute_for_inference
from llm_jax.infer.device_split import Split
from llm_jax.infer.engine.ahead import ahead, device_bytes
from llm_jax.infer.engine.engine import longest_text
from llm_jax.infer.engine.programs import Shapes
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.infer.engine.weights import untied
from llm_jax.parallel.mesh import make_mesh, used_axes
from llm_jax.plan.machines import Machine
from llm_jax.plan.memory import HEADROOM
from llm_jax.preflight.measure import hbm_bytes, too_large
from llm_jax.preflight.topology import devices, require_compiler


def measure_serving(
    config: RunConfig, machine: Machine, settings: EngineSettings, tensor: int | None
) -> dict[str, Any]:
    """What `llm-jax preflight --serve` reports; see its documentation for the fields.

    Args:
      tensor: chips that share each matrix; None: as `serve` chooses.

    Raises:
      UserError: the model does not continue texts, the slice has several hosts, `tensor` does not
        divide the model, or the TPU compiler is not installed.
    """
    require_compiler()
    model = generative_of(config.model, "preflight --serve")
    hosts = machine.piece.hosts * machine.slices
    if hosts > 1:
        raise UserError(
            f"--serve: {machine.name} has {counted(hosts, 'host')}, and `serve` is one process: "
            "name a slice of one host."
        )
    capacity = int(machine.chip.hbm_bytes / machine.chip.devices_per_chip)
    mesh = _mesh(config, devices(machine), capacity, settings, tensor)
    length = longest_text(model.max_seq_len, settings.max_len)
    chunk = min(settings.prefill_chunk, length)
    shapes = Shapes(
        untied(model), compute_for_inference(config.compute), model.vocab_size, settings.slots,
        length, chunk, mesh,
    )  # fmt: skip
    start = time.monotonic()
    found = ahead(shapes)
    weights, table, cache = (
        device_bytes(tree) for tree in (found.params, found.params["embed"], found.cache)
    )
    limit = int((1 - HEADROOM) * capacity)
    programs = {
        name: _bytes(lowered, weights + cache)
        for name, lowered in (("decode", found.decode), ("piece", found.piece))
    }
    seconds = (weights - table + cache) / (
        machine.chip.hbm_bandwidth / machine.chip.devices_per_chip
    )
    return {
        "name": config.name,
        "topology": machine.name,
        "chips": machine.chips,
        "mesh": used_axes(mesh),
        "slots": settings.slots,
        "max_len": length,
        "dtype": config.compute.dtype,
        "fits": all(one["peak"] <= limit for one in programs.values()),
        "weight_bytes": weights,
        "cache_bytes": cache,
        "programs": programs,
        "hbm_capacity": capacity,
        "hbm_limit": limit,
        "most_tokens_per_second": settings.slots / seconds,
        "compile_seconds": time.monotonic() - start,
    }


def _mesh(
    config: RunConfig,
    chips: Sequence[Any],
    capacity: int,
    settings: EngineSettings,
    tensor: int | None,
) -> Mesh:
    one = make_mesh(ParallelConfig(data=1), chips[:1])
    with jax.set_mesh(one):  # which says that these are TPUs
        split = Split(tensor, settings.slots, settings.max_len)
        return split.over(list(chips), capacity, config) or one


def _bytes(lowered: jax.stages.Lowered, arguments: int) -> dict[str, int]:
    """Bytes per device, by part."""
    try:
        return hbm_bytes(lowered.compile())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        parts: dict[str, int] = too_large(str(error), arguments)["hbm_bytes"]
        return parts


def lines(result: dict[str, Any]) -> list[str]:
    """The result as readable lines."""
    from llm_jax.preflight.table import size

    mesh = ", ".join(f"{axis} {n}" for axis, n in result["mesh"].items()) or "one device"
    peak = max(one["peak"] for one in result["programs"].values())
    beside = peak - result["weight_bytes"] - result["cache_bytes"]
    texts = f"{counted(result['slots'], 'text')} of {result['max_len']:,} tokens"
    return [
        f"{result['name']} served on {result['topology']} ({counted(result['chips'], 'chip')}): "
        f"mesh {mesh}, {texts}, {result['dtype']}",
        "",
        f"{'fits' if result['fits'] else 'DOES NOT FIT'}: peak {size(peak)} per device of "
        f"{size(result['hbm_limit'])} (90% of {size(result['hbm_capacity'])})",
        f"  weights {size(result['weight_bytes'])}, cache {size(result['cache_bytes'])}, beside "
        f"them {size(max(beside, 0))}",
        f"At most {result['most_tokens_per_second']:,.0f} tokens/s: each step reads the weights, "
        "and here all of the cache.",
        "",
        f"Compiled in {result['compile_seconds']:.0f} s.",
    ]
