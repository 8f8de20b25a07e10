"""Held-out loss and bits per byte during training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from llm_jax.config import RunConfig
from llm_jax.data.dataset import TokenDataset
from llm_jax.objectives.objective import objective_of
from llm_jax.train.feed import local_batches, padded_token_bytes, to_device
from llm_jax.train.step import Batch, Metrics, compile_eval_step


class Validation:
    """Evaluates the same batches each time: `eval.batches`, spread evenly over the validation
    split."""

    def __init__(self, dataset: TokenDataset, config: RunConfig, mesh: Mesh) -> None:
        self._mesh, self._arrays = mesh, objective_of(config).arrays
        self._token_bytes_V = padded_token_bytes(dataset, config)
        self._config = config
        self._step: Callable[[Any, Batch], Metrics] | None = None
        batches = local_batches(dataset, config, mesh, "validation")
        whole = batches.steps_per_epoch
        count = min(config.eval.batches * config.compute.accumulate, whole)
        # Not just the first batches: they hold only a few documents.
        self._batches = [batches.at(i * whole // count) for i in range(count)]

    def compile(self) -> None:
        """Compiles the program, unless that is done."""
        if self._step is None:
            self._step = compile_eval_step(self._config, self._mesh, self._token_bytes_V)

    def measure(self, params: Any, interrupted: Callable[[], bool]) -> dict[str, float] | None:
        """`loss` in nats per target and `bits_per_byte` of text.

        None if `interrupted()`, which is called before each batch, returns True.
        """
        self.compile()
        assert self._step is not None
        measured: list[Metrics] = []
        for batch in self._batches:
            if interrupted():
                return None
            measured.append(self._step(params, to_device(batch, self._mesh, self._arrays)))
            # Without this, all batches would be dispatched before `interrupted` can be True.
            jax.block_until_ready(measured[-1])
        sums = jax.tree.map(lambda *leaves: float(sum(leaves)), *jax.device_get(measured))
        return {
            "loss": sums["nats"] / sums["count"],
            "bits_per_byte": sums["nats"] / math.log(2) / sums["bytes"],
        }
