"""What to change when a step does not fit: remedies in the order of their cost, each compiled.

Recomputing activations costs a third more FLOPs. Smaller micro-batches gather the weights more
often. More sharding exchanges more within each layer. None of them changes what the run learns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from llm_jax.config import ConfigError, RunConfig, layers_of
from llm_jax.plan.layout import ON_DEVICE
from llm_jax.plan.machines import Machine
from llm_jax.preflight.cache import measured


def fix(config: RunConfig, machine: Machine, found: dict[str, Any]) -> dict[str, Any]:
    """The first remedy that fits.

    Args:
      found: the result of `measured` for `config`, which does not fit.

    Returns:
      `tried` (one dict per compile: `change`, `peak`, `fits`), `config` (the RunConfig that fits,
      None if none does) and `found` (its measurement, or that of the last try).
    """
    tried = []
    for change, candidate in remedies(config, machine):
        found = measured(candidate, machine)
        tried.append({"change": change, "peak": found["hbm_bytes"]["peak"], "fits": found["fits"]})
        if found["fits"]:
            return {"tried": tried, "config": candidate, "found": found}
    return {"tried": tried, "config": None, "found": found}


def remedies(config: RunConfig, machine: Machine) -> Iterator[tuple[str, RunConfig]]:
    """Each change in words, with the config that has it and all changes before it."""
    words: list[str] = []

    def changed(word: str, **parts: Any) -> tuple[str, RunConfig]:
        nonlocal config
        config = dataclasses.replace(config, **parts)
        words.append(word)
        return ", ".join(words), config

    known = config.compute.remat in ON_DEVICE  # `offload` recomputes as much as `full`
    for remat in ON_DEVICE[ON_DEVICE.index(config.compute.remat) + 1 :] if known else ():
        words = [word for word in words if "compute.remat" not in word]
        yield changed(
            f"compute.remat {remat}", compute=dataclasses.replace(config.compute, remat=remat)
        )
    while _micro_batch(config, machine) % 2 == 0:
        words = [word for word in words if "compute.accumulate" not in word]
        more = 2 * config.compute.accumulate
        yield changed(
            f"compute.accumulate {more}",
            compute=dataclasses.replace(config.compute, accumulate=more),
        )
    parallel = config.parallel
    rest = _data(config, machine)
    if rest > 1 and config.model.d_model % (rest * parallel.fsdp) == 0:
        fsdp = rest * parallel.fsdp
        parallel = dataclasses.replace(parallel, data=1, fsdp=fsdp)
        yield changed(f"parallel.data 1 and parallel.fsdp {fsdp}", parallel=parallel)
    while _splits(config, 2 * parallel.tensor) and parallel.fsdp % 2 == 0:
        words = [word for word in words if "parallel.tensor" not in word]
        parallel = dataclasses.replace(
            parallel, fsdp=parallel.fsdp // 2, tensor=2 * parallel.tensor
        )
        try:
            yield changed(
                f"parallel.fsdp {parallel.fsdp} and parallel.tensor {parallel.tensor}",
                parallel=parallel,
            )
        except ConfigError:
            return


def _data(config: RunConfig, machine: Machine) -> int:
    """Size of the axis `data`, where -1 stands for all other devices."""
    p = config.parallel
    others = p.replica * p.fsdp * p.tensor * p.context * p.expert * p.pipeline
    return p.data if p.data != -1 else max(machine.devices // others, 1)


def _micro_batch(config: RunConfig, machine: Machine) -> int:
    """Sequences of one micro-batch on one device; 1 if a pipeline splits it further."""
    p = config.parallel
    shards = p.replica * _data(config, machine) * p.fsdp * p.expert
    pieces = p.pipeline * (p.pieces or 1)
    return 1 if pieces > 1 else config.data.batch_size // config.compute.accumulate // shards


def _splits(config: RunConfig, tensor: int) -> bool:
    model = layers_of(config.model)
    sizes = model.num_heads, model.num_kv_heads, model.d_ff, model.vocab_size
    return math.gcd(*sizes) % tensor == 0
