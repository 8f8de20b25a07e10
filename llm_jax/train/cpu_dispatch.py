"""In which thread a CPU runs the steps."""

from __future__ import annotations

import dataclasses

import jax

from llm_jax.config import RunConfig, layers_of
from llm_jax.facts.counts import token_flops

INLINE_FLOPS = 1e11
"""A CPU runs steps of at least this many FLOPs (about half a second) in the calling thread."""


def runs_inline(config: RunConfig) -> bool:
    """Whether a CPU runs the steps of `config` in the thread that calls them.

    glibc keeps the memory that the main thread frees (see `environment` in commands/train.py).
    Large blocks that other threads free go back to the system at once, so the temporaries of a
    large step would be zeroed again at each step. For small steps, the Python code between two
    steps costs more (benchmarks/train_step.py).
    """
    # Roughly, for a family of your own or another kind.
    like_it = dataclasses.replace(layers_of(config.model), kind="decoder")
    flops = config.batch_tokens * token_flops(like_it, config.data.seq_len).train
    return flops >= INLINE_FLOPS


def dispatch_for(config: RunConfig) -> None:
    """Tells JAX's CPU client in which thread to run the steps. Call it before JAX starts."""
    jax.config.update("jax_cpu_enable_async_dispatch", not runs_inline(config))
