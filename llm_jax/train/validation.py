"""Held-out loss and bits per byte during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from llm_jax.config import RunConfig
from llm_jax.data.batch import Rows
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.mixture import run_shares
from llm_jax.objectives.objective import objective_of
from llm_jax.train.feed import Datasets, held_out_batches, padded_token_bytes, to_device
from llm_jax.train.step import Batch, Metrics, compile_eval_step


class Validation:
    """Evaluates the same batches each time: `eval.batches`, spread evenly over the validation
    split, of each source."""

    def __init__(self, datasets: Datasets, config: RunConfig, mesh: Mesh) -> None:
        self._mesh, self._objective = mesh, objective_of(config)
        self._token_bytes_V = padded_token_bytes(datasets[0].tokenizer, config)
        self._config = config
        self._step: Callable[[Any, Batch], tuple[Metrics, dict[str, jax.Array]]] | None = None
        self._batches = {
            name: self._spread(dataset, config)
            for name, dataset in zip(config.data.folders, datasets, strict=True)
        }
        sizes = [dataset.num_tokens("train") for dataset in datasets]
        self._shares = run_shares(config.data, config.steps, sizes)

    def _spread(self, dataset: TokenDataset, config: RunConfig) -> list[Rows]:
        batches = held_out_batches(dataset, config, self._mesh)
        whole = batches.steps_per_epoch
        count = min(config.eval.batches * config.compute.accumulate, whole)
        # Not just the first batches: they hold only a few documents.
        return [batches.at(i * whole // count) for i in range(count)]

    def compile(self) -> None:
        """Compiles the program, unless that is done."""
        if self._step is None:
            self._step = compile_eval_step(self._config, self._mesh, self._token_bytes_V)

    def measure(self, params: Any, interrupted: Callable[[], bool]) -> dict[str, float] | None:
        """`loss` in nats per target, `bits_per_byte` of text, and the objective's own `figures`.

        For a mixture, the first two are of text in the shares of the whole run, and `loss/NAME` and
        `bits_per_byte/NAME` of each source.

        None if `interrupted()`, which is called before each batch, returns True.
        """
        self.compile()
        assert self._step is not None
        sums, rows = dict[str, dict[str, float]](), list[Rows]()
        for name, batches in self._batches.items():
            measured: list[Metrics] = []
            for batch in batches:
                if interrupted():
                    return None
                arrays = self._objective.arrays
                one, outputs = self._step(params, to_device(batch, self._mesh, arrays))
                measured.append(one)
                rows += [jax.device_get(outputs)] if outputs else []
                # Without this, all would be dispatched before `interrupted` can be True.
                jax.block_until_ready(measured[-1])
            sums[name] = jax.tree.map(lambda *x: float(sum(x)), *jax.device_get(measured))
        found = _figures([*sums.values()], self._shares)
        if len(sums) > 1:
            for name, own in sums.items():
                found |= {f"{k}/{name}": value for k, value in _figures([own], [1.0]).items()}
        if self._objective.figures and rows:
            whole = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
            found |= self._objective.figures(whole, self._config)
        return found


def _figures(sums: list[dict[str, float]], shares: Sequence[float]) -> dict[str, float]:
    """`loss` of text that has these shares of its targets from each source, and `bits_per_byte` if
    its targets have bytes."""
    scales = [1.0]  # so that a single source is not rounded
    if len(sums) > 1:
        scales = [share / one["count"] for share, one in zip(shares, sums, strict=True)]
    nats, count, size = (
        sum(scale * one[name] for scale, one in zip(scales, sums, strict=True))
        for name in ("nats", "count", "bytes")
    )
    figures = {"loss": nats / count}
    return figures | ({"bits_per_byte": nats / math.log(2) / size} if size else {})
