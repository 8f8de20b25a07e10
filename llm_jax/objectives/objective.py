"""What an objective is, and the choice of one by the config's `objective`."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from llm_jax.config import RunConfig, require
from llm_jax.config.extensions import load_part
from llm_jax.data.batch import PACKED, Array, Rows
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.common.moe import Routing
from llm_jax.models.protocol import Batch

Prepare = Callable[[Rows, np.ndarray], Rows]
"""prepare(rows, numbers): from the rows of packed text to those of a batch, on the host."""


class Loss(NamedTuple):
    """What a batch costs: float32 scalars."""

    total: jax.Array
    """The loss to differentiate."""
    nats: jax.Array
    """The part that is reported: the targets' -log p, without regularisers. It has no gradient."""
    routing: Routing | None = None
    """`Hidden.routing`. The losses of the routers are added by the trainer."""


@dataclass(frozen=True)
class Objective:
    """A loss, and the arrays of the batches that it needs."""

    loss: Callable[[Any, Batch, jax.Array, RunConfig], Loss]
    """loss(params, batch, weight, config). `weight` is a float32 scalar, 1/number of targets in the
    whole batch: the sum of weighted losses over micro-batches is their mean. A target is a number
    of `targets` from 0 on."""
    arrays: Mapping[str, Array] = field(default_factory=lambda: PACKED)
    """The arrays of a batch."""
    prepare: Prepare | None = None
    """prepare(rows, numbers): adds the arrays that packed text lacks, on the host. `numbers`, (b,)
    int64, is each sequence's place in the order of the run: what is drawn at random must follow
    from it, so that a run is the same on any number of hosts and after any resume."""
    with_tokenizer: Callable[[Tokenizer], Prepare] | None = None
    """Makes `prepare` for an objective whose rows depend on the tokenizer.

    Raises:
      ConfigError: the tokenizer lacks a token that the objective needs.
    """

    notice: Callable[[Tokenizer], str] | None = None
    """What a start says of how the objective uses the tokenizer."""
    of_text: bool = True
    """Whether the loss is -log p of tokens, so that it can be told per byte of their text."""
    examples: str | None = None
    """Kind of labelled examples that it learns from (`data/labelled/`); None: text."""
    outputs: Callable[[Any, Batch, RunConfig], dict[str, jax.Array]] | None = None
    """outputs(params, batch, config): what `figures` needs of a held-out batch, (B, …) each."""
    figures: Callable[[Rows, RunConfig], dict[str, float]] | None = None
    """figures(rows, config): figures beside the loss, from the outputs of all held-out batches. A
    row whose `targets` are all negative is padding."""

    def rows(self, tokenizer: Tokenizer) -> Prepare:
        """What makes the rows of all arrays from those of packed text.

        It raises `ConfigError` if `prepare` leaves one out, or makes one of another shape or dtype.
        """
        prepare = self.with_tokenizer(tokenizer) if self.with_tokenizer else self.prepare
        return functools.partial(self._checked, prepare)

    def _checked(self, prepare: Prepare | None, packed: Rows, numbers: np.ndarray) -> Rows:
        made = prepare(packed, numbers) if prepare else packed
        B, T = packed["inputs"].shape
        for name, array in self.arrays.items():
            wanted = f"{array.dtype} {array.shape(B, T)}"
            found = f"{made[name].dtype} {made[name].shape}" if name in made else "missing"
            require(
                found == wanted,
                f"The objective's array {name!r} is {found}: its `prepare` must make it {wanted}.",
            )
        return {name: made[name] for name in self.arrays}


def objective_of(config: RunConfig) -> Objective:
    """The objective of a run.

    What the config names is one, or a function of the config that makes one.

    Raises:
      ConfigError: it is neither.
    """
    found = load_part("objective", config.objective)
    if isinstance(found, types.FunctionType):
        found = found(config)
    require(
        isinstance(found, Objective),
        f"objective is {config.objective!r}, which is a {type(found).__name__}: make it an "
        "llm_jax.objectives.objective.Objective.",
    )
    return found
