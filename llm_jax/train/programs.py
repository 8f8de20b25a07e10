"""The programs of a run, compiled side by side before its first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from llm_jax.config import RunConfig
from llm_jax.train.state import State, compile_init
from llm_jax.train.step import Batch, Metrics, compile_train_step

StepFunction = Callable[[State, Batch], tuple[State, Metrics]]


@dataclass(frozen=True)
class Programs:
    """What a run executes.

    Attributes:
      first_state: makes the random state of a new run; None for a run that begins with another.
      steps: size of the batch → the train step.
    """

    first_state: Callable[[], State] | None
    steps: dict[int, StepFunction]


def compile_programs(
    variants: Iterable[RunConfig],
    mesh: Mesh,
    token_bytes_V: np.ndarray,
    random_start: bool,
    also: Iterable[Callable[[], object]] = (),
) -> Programs:
    """Compiles the programs of a run.

    Args:
      variants: the configs of the run's stages. Those with batches of one size share a program.
      random_start: whether the run begins with random weights.
      also: what else is to be compiled.
    """
    sizes = {variant.data.batch_size: variant for variant in variants}
    # XLA compiles without Python's lock. Several processes may tune kernels together, so they
    # compile in one order.
    with ThreadPoolExecutor(1 if jax.process_count() > 1 else None) as pool:
        first = None
        if random_start:
            first = pool.submit(compile_init, next(iter(sizes.values())), mesh)
        steps = {
            size: pool.submit(compile_train_step, variant, mesh, token_bytes_V)
            for size, variant in sizes.items()
        }
        for other in [pool.submit(compile_) for compile_ in also]:
            other.result()
        return Programs(
            first.result() if first else None,
            {size: step.result() for size, step in steps.items()},
        )
