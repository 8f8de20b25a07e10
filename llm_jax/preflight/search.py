"""The best mesh, remat and micro-batch for a machine: ranked by rooflines, confirmed by XLA."""

from __future__ import annotations

import dataclasses
from typing import Any

from llm_jax.config import ConfigError, RunConfig, UserError, decoder_of
from llm_jax.config.wording import counted
from llm_jax.facts.counts import token_flops
from llm_jax.plan.layout import layouts
from llm_jax.plan.machines import Machine
from llm_jax.plan.memory import HEADROOM, Layout, device_bytes
from llm_jax.plan.roofline import step_time
from llm_jax.preflight.cache import measured

COMPILED = 3
"""Number of candidates to compile."""
DOUBT = 1.15
"""A candidate is left out only if the planner's bytes exceed the available memory by this factor.
The planner is within 10% of the compiler (docs/scale.md)."""


def search(config: RunConfig, machine: Machine) -> dict[str, Any]:
    """The fastest candidate that fits when compiled. The batch stays that of the config.

    Returns:
      `ranked` (number of candidates), `tried` (one dict per compile: `mesh`, `remat`, `accumulate`,
      `planned_seconds`, `step_seconds`, `peak`, `fits`), `config` (None if none fits) and `found`
      (its measurement, or that of the last try).

    Raises:
      UserError: no mesh of the machine splits the batch and the model, or none can fit.
    """
    ranked = candidates(config, machine)
    if not ranked:
        raise UserError(
            f"No mesh on {machine.name} splits {counted(config.data.batch_size, 'sequence')} "
            "and the model so that it fits: take more chips, or another data.batch_size."
        )
    tried, best = [], None
    for seconds, candidate in ranked[:COMPILED]:
        found = measured(candidate, machine)
        tried.append(
            {
                "mesh": found["mesh"],
                "remat": candidate.compute.remat,
                "accumulate": candidate.compute.accumulate,
                "planned_seconds": seconds,
                "step_seconds": found.get("step_seconds"),
                "peak": found["hbm_bytes"]["peak"],
                "fits": found["fits"],
            }
        )
        if found["fits"] and (best is None or _middle(found) < _middle(best[1])):
            best = candidate, found
    chosen, found = best or (None, found)
    return {"ranked": len(ranked), "tried": tried, "config": chosen, "found": found}


def _middle(found: dict[str, Any]) -> float:
    return sum(found["step_seconds"]) / 2


def candidates(config: RunConfig, machine: Machine) -> list[tuple[float, RunConfig]]:
    """(expected seconds per step, config) of each candidate that may fit, the fastest first.

    For each mesh and remat, only the largest micro-batch that may fit is kept: smaller ones gather
    the weights more often without a benefit.
    """
    model = decoder_of(config.model, "preflight")
    flops = token_flops(model, config.data.seq_len)
    room = DOUBT * (1 - HEADROOM) * machine.chip.hbm_bytes / machine.chip.devices_per_chip
    found = []
    for mesh in layouts(model, machine, config.compute.dtype):
        per_shard, rest = divmod(config.data.batch_size, mesh.batch_shards)
        for accumulate in (n for n in range(1, per_shard + 1) if not rest and per_shard % n == 0):
            layout = dataclasses.replace(mesh, accumulate=accumulate)
            tokens = per_shard // accumulate * config.data.seq_len
            chunk, optim = config.compute.loss_chunk, config.optim
            if sum(device_bytes(model, layout, tokens, chunk, optim).values()) > room:
                continue
            try:
                candidate = _with(config, machine, layout)
            except ConfigError:  # micro-batches that do not divide the steps of a batch ramp
                continue
            time = step_time(
                model,
                flops,
                machine.chip,
                machine.piece,
                machine.slices,
                layout,
                config.batch_tokens,
            )
            found.append((time.expected, candidate))
            break
    return sorted(found, key=lambda pair: pair[0])


def _with(config: RunConfig, machine: Machine, layout: Layout) -> RunConfig:
    """`config` on the mesh of `layout`; the slices are the axis `replica`."""
    parallel = dataclasses.replace(
        config.parallel,
        replica=machine.slices,
        data=layout.data // machine.slices,
        fsdp=layout.fsdp // layout.expert,
        tensor=layout.tensor,
        context=1,
        expert=layout.expert,
        pipeline=1,
        pieces=None,
        rounds=1,
    )
    return dataclasses.replace(
        config,
        parallel=parallel,
        compute=dataclasses.replace(
            config.compute, remat=layout.remat, accumulate=layout.accumulate
        ),
    )
