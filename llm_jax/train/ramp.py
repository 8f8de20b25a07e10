"""A run whose first batches are smaller, as stages of one batch size each.

Small batches lose nothing early in training, where gradients agree (McCandlish et al. 2018); Llama
3 (2024, section 3.4.1) doubled its batch twice. The micro-batch, and with it the memory, is the
same in all stages: what doubles is the number of micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm_jax.config import RunConfig


@dataclass(frozen=True)
class Stage:
    config: RunConfig
    """Of a run that has this stage's batch size throughout."""
    end: int
    """First step that is not of this stage."""
    offset: int
    """Step n begins with sequence n · batch size + offset of the order."""


def stages(config: RunConfig) -> list[Stage]:
    """The stages of `config`, one without a ramp; each reads on where the last one ended."""
    data, optim = config.data, config.optim
    micro = data.batch_size // optim.accumulate
    ends = [first for first, _ in data.stages[1:]] + [config.steps]
    made = []
    for (first, size), end in zip(data.stages, ends, strict=True):
        alone = replace(
            config,
            data=replace(data, batch_size=size, ramp_from=None, ramp_steps=0),
            optim=replace(optim, accumulate=size // micro),
        )
        made.append(Stage(alone, end, data.sequences(first) - first * size))
    return made
