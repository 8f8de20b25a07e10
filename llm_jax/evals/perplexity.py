"""Loss, perplexity and bits per byte of a run on held-out text, over all of its windows.

Text is read as in training: one stream `<s> document </s> <s> …`, cut into windows of
`data.seq_len`. A token is predicted only from earlier tokens of its own window and document.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from llm_jax.config import RunConfig, UserError, generative_of
from llm_jax.data.batch import IGNORED, Rows
from llm_jax.data.batches import Batches, split_documents
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers import Marks, Tokenizer
from llm_jax.evals.score import Score
from llm_jax.parallel.whole_machine import machine_mesh
from llm_jax.train.feed import to_device
from llm_jax.train.state import abstract_state
from llm_jax.train.step import compile_eval_step

Progress = Callable[[str, int, int | None], None]


class Evaluator:
    """A run's parameters, split over this machine's devices, and the compiled eval step.

    Attributes:
      batch_size: windows per batch.
    """

    def __init__(self, config: RunConfig, params: dict[str, Any], tokenizer: Tokenizer) -> None:
        self._mesh = machine_mesh(generative_of(config.model, "Next-token evaluation"))
        count = self._mesh.size
        micro = config.data.batch_size // config.compute.accumulate
        self.batch_size = -(-micro // count) * count
        self.seq_len = config.data.seq_len
        token_bytes = tokenizer.token_bytes
        padding = config.model.vocab_size - len(token_bytes)
        self._config = dataclasses.replace(
            config,
            objective="next_token",
            compute=dataclasses.replace(config.compute, accumulate=1),
            data=dataclasses.replace(config.data, batch_size=self.batch_size, ramp=None),
            # The parameters are float32, whatever dtype the run stores.
            optim=dataclasses.replace(
                config.optim,
                kind="adamw",  # none is needed
                z_loss=0.0,
                param_dtype="float32",
                grad_dtype="float32",
            ),
        )
        self._step = compile_eval_step(self._config, self._mesh, np.pad(token_bytes, (0, padding)))
        where = jax.tree.map(
            lambda leaf: leaf.sharding, abstract_state(self._config, self._mesh)["params"]
        )
        self._params = jax.device_put(params, where)

    def measure(self, batches: Iterable[Rows], progress: Progress, total: int) -> Score:
        """The score of all batches together.

        Raises:
          UserError: there is no text, or the losses are not finite numbers.
        """
        score = Score(0.0, 0, 0)
        for i, batch in enumerate(batches):
            sums, _ = jax.device_get(self._step(self._params, to_device(batch, self._mesh)))
            score += Score(float(sums["nats"]), int(sums["count"]), int(sums["bytes"]))
            progress("evaluating", i + 1, total)
        if score.num_bytes == 0:
            raise UserError("There is no text to evaluate: it is empty.")
        if not math.isfinite(score.nats):
            raise UserError(
                "The model's losses on this text are not finite numbers: its weights are too "
                "large, or broken."
            )
        return score

    def split(self, dataset: TokenDataset, split: str, progress: Progress) -> Score:
        """The score of a split of a dataset, without its last, incomplete window."""
        batches = Batches(
            dataset, split=split, seq_len=self.seq_len, batch_size=self.batch_size, seed=None
        )
        with batches.iterate() as source:
            return self.measure((b for _, b in source), progress, batches.steps_per_epoch)

    def stream(self, tokens: np.ndarray, marks: Marks, progress: Progress) -> Score:
        """The score of a token stream; see `windows`."""
        total = -(-max(len(tokens) - 1, 1) // (self.seq_len * self.batch_size))
        return self.measure(windows(tokens, self.seq_len, self.batch_size, marks), progress, total)


def windows(tokens: np.ndarray, seq_len: int, batch_size: int, marks: Marks) -> Iterator[Rows]:
    """Batches in which each token of a stream, except the first, is a target once. The last batch
    is padded.

    Args:
      tokens: (n,) int32, `<s> document </s> …`.

    Yields:
      Batches in the format of `Batches.at`; the targets of padding are -1.
    """
    count = max(len(tokens) - 1, 1)
    rows = -(-count // (seq_len * batch_size)) * batch_size
    padded = np.full(rows * seq_len + 1, marks.begin, np.int32)
    padded[: len(tokens)] = tokens
    starts = np.arange(rows) * seq_len
    for first in range(0, rows, batch_size):
        index = starts[first : first + batch_size, None] + np.arange(seq_len + 1)
        batch = split_documents(padded[index], marks)
        batch["targets"][index[:, 1:] >= len(tokens)] = IGNORED
        yield batch
