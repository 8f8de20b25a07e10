"""Loss and figures of an encoder's head on labelled examples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import EncoderConfig, ModernEncoderConfig, ParallelConfig, RunConfig, UserError
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.labelled.dataset import Examples, LabelledDataset
from llm_jax.data.labelled.records import read_examples
from llm_jax.data.labelled.rows import cut, encode, fill
from llm_jax.data.sources.left_out import LeftOut, Unusable
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.feed import to_device
from llm_jax.train.step import compile_eval_step

Progress = Callable[[str, int, int | None], None]


def held_out(config: RunConfig, tokenizer: Tokenizer) -> Examples:
    """The validation split of the run's dataset.

    Raises:
      UserError: it is missing, or holds something else.
    """
    dataset = TokenDataset.open(config.data.path)
    assert isinstance(config.model, EncoderConfig | ModernEncoderConfig)
    if (
        not isinstance(dataset, LabelledDataset)
        or (dataset.kind, dataset.labels) != (config.model.head, config.model.labels)
        or dataset.tokenizer.sha256 != tokenizer.sha256
    ):
        raise UserError(
            f"The dataset in {config.data.path} has other examples, labels or another tokenizer "
            "than the run: restore it, or evaluate --text FILE."
        )
    return Examples(dataset.rows("validation"))


def read_file(path: Path, config: RunConfig, tokenizer: Tokenizer, left_out: LeftOut) -> Examples:
    """The labelled examples in a file, cut as in training.

    Raises:
      UserError: none of them can be used.
    """
    model, made = config.model, []
    assert isinstance(model, EncoderConfig | ModernEncoderConfig)
    for example in read_examples([path], left_out, model.head)[1]:
        targets = {"classify": [example.target], "tag": example.target}.get(model.head, ())
        try:
            if not {*model.labels}.issuperset(targets):
                raise Unusable("label that the model does not have")
            made.append(
                cut(encode(example, model.head, tokenizer), model.head, config.data.seq_len)
            )
        except Unusable as error:
            left_out.lose(error.reason, str(path), None, error.detail)
    if not made:
        raise UserError(f"{path} has no example that the model can be evaluated on.")
    return Examples(fill(made, model.head, config.data.seq_len, model.labels, tokenizer))


class LabelledEvaluator:
    """A run's parameters on one device, and the compiled eval step."""

    def __init__(self, config: RunConfig, params: dict[str, Any], tokenizer: Tokenizer) -> None:
        micro = config.data.batch_size // config.compute.accumulate
        self._config = dataclasses.replace(
            config,
            compute=dataclasses.replace(config.compute, accumulate=1),
            data=dataclasses.replace(config.data, batch_size=micro, ramp=None),
            parallel=ParallelConfig(),
            # The parameters are float32, whatever dtype the run stores.
            optim=dataclasses.replace(
                config.optim, kind="adamw", param_dtype="float32", grad_dtype="float32"
            ),
        )
        self._objective, self._params = objective_of(self._config), params
        self._rows = self._objective.rows(tokenizer)
        self._mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
        self._step = compile_eval_step(
            self._config, self._mesh, np.zeros(config.model.vocab_size, np.int32)
        )

    def measure(self, examples: Examples, progress: Progress) -> dict[str, float]:
        """`loss`, `examples` (their number), and the objective's figures.

        Raises:
          UserError: the losses are not finite numbers.
        """
        size, nats, count = self._config.data.batch_size, 0.0, 0
        outputs = []
        for first in range(0, examples.windows, size):
            numbers = np.arange(first, first + size)
            batch = self._rows(examples.in_order(numbers), numbers)
            device = to_device(batch, self._mesh, self._objective.arrays)
            sums, made = jax.device_get(self._step(self._params, device))
            nats, count = nats + float(sums["nats"]), count + int(sums["count"])
            outputs.append(made)
            progress("evaluating", min(first + size, examples.windows), examples.windows)
        if not math.isfinite(nats) or not count:
            raise UserError(
                "The model's losses on these examples are not finite numbers: its weights are too "
                "large, or broken."
            )
        whole = {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}
        assert self._objective.figures is not None
        found = {"loss": nats / count, "examples": examples.windows}
        return found | self._objective.figures(whole, self._config)
