"""Log-probabilities of given continuations, many at a time, in few compiled shapes.

A pair is a context and what follows it, as ids. It has a row of its own, padded on the right, so it
shares nothing with its neighbours. Rows are sorted by length, longest first: a batch is padded to
its first row, and what does not fit into memory shows at once. Only scored positions are multiplied
with the output matrix. Pairs with the same inputs, such as one-token answers to a question, are one
row.

Shape letters: B rows, T positions of a row, C scored tokens of a row, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llm_jax.attention.ring import zigzag
from llm_jax.config import RunConfig, UserError, generative_of
from llm_jax.models.protocol import context_of, model_of
from llm_jax.objectives.cross_entropy import chunk_length
from llm_jax.parallel.mesh import BATCH_AXES, axis_shards, parameter_sharding, sharding
from llm_jax.parallel.whole_machine import machine_mesh
from llm_jax.train.compiler import compiler_options

Pair = tuple[Sequence[int], Sequence[int]]
"""Ids of a context, at least one, and of its continuation."""
SHORTEST = 32
"""Rows are padded to this times a power of two, or to the model's context."""
SCORED = 16
"""Scored tokens of a row are padded to this times a power of eight, or to the row's length."""
TOKENS = 2**13
"""Positions of a batch on each part of the mesh."""


class Scored(NamedTuple):
    """What a model says about one continuation."""

    log_prob: float
    """Natural logarithm of its probability, the sum of `token_log_probs`."""
    greedy: bool
    """Whether each of its tokens is the most likely one."""
    token_log_probs: tuple[float, ...]


@dataclasses.dataclass
class _Row:
    """A sequence of inputs, and the tokens that are scored after them."""

    inputs: tuple[int, ...]
    places: list[int] = dataclasses.field(default_factory=list)
    """Position after which each token comes."""
    targets: list[int] = dataclasses.field(default_factory=list)
    pairs: list[tuple[int, slice]] = dataclasses.field(default_factory=list)
    """Number of each pair, and its part of the targets."""

    def add(self, number: int, continuation: Sequence[int]) -> None:
        first, size = len(self.targets), len(continuation)
        self.places += range(len(self.inputs) - size, len(self.inputs))
        self.targets += continuation
        self.pairs.append((number, slice(first, first + size)))


class Scorer:
    """Scores pairs with a model, over a mesh.

    Attributes:
      max_len: most inputs of a row, the model's context.
      truncated: pairs so far that were longer, and lost the beginning of their context.
      shapes: the (B, T, C) that have been compiled.
    """

    def __init__(
        self,
        config: RunConfig,
        params: Any,
        *,
        mesh: Mesh | None = None,
        vocab_size: int | None = None,
    ) -> None:
        """
        Args:
          params: of the model; with a mesh, arrays on it. Without, they are split over this
            machine's devices.
          mesh: the trainer's; None: one of this machine's devices.
          vocab_size: tokens of the tokenizer. What pads the vocabulary beyond them has probability
            0. None: no padding.

        Raises:
          UserError: the model does not predict next tokens.
        """
        model = generative_of(config.model, "Scoring")
        self._place = mesh is None
        self._mesh = machine_mesh(model) if mesh is None else mesh
        if mesh is None:  # the run's own mesh has no say
            config = dataclasses.replace(config, parallel=type(config.parallel)())
        self._config = dataclasses.replace(
            config, compute=dataclasses.replace(config.compute, quantize="none", remat="none")
        )
        self._vocab_size = config.model.vocab_size if vocab_size is None else vocab_size
        self._params = self._placed(params)
        self._options = compiler_options(config, self._mesh)
        self._programs: dict[tuple[int, int, int], Any] = {}
        self.max_len = config.model.max_seq_len
        self.truncated = 0

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        return list(self._programs)

    def score(self, pairs: Sequence[Pair], params: Any = None) -> list[Scored]:
        """Scores each continuation after its context, in the order of `pairs`.

        A pair that is longer than the context loses ids from the left, as in lm-eval; `truncated`
        counts them. An empty continuation has log-probability 0.

        Args:
          params: other parameters than the scorer's, with the same shapes and shardings.

        Raises:
          UserError: a pair has no context, or a continuation is longer than the model's context,
            or the logits are not finite numbers.
        """
        params = self._params if params is None else self._placed(params)
        found: list[Scored | None] = [None] * len(pairs)
        rows = self._rows(pairs)
        for batch in self._batches(rows):
            log_probs_BC, top_BC = self._run(params, batch)
            for row, log_probs_C, top_C in zip(batch, log_probs_BC, top_BC, strict=False):
                for number, part in row.pairs:
                    each = tuple(log_probs_C[part].tolist())
                    found[number] = Scored(math.fsum(each), bool(top_C[part].all()), each)
        return [Scored(0.0, True, ()) if one is None else one for one in found]

    def _placed(self, params: Any) -> Any:
        if not self._place:
            return params
        specs = model_of(self._config.model).specs(self._config.model)

        def place(path: Any, leaf: Any, spec: Any) -> Any:
            name = "/".join(entry.key for entry in path)
            where = parameter_sharding(self._mesh, name, np.shape(leaf), spec.axes)
            return jax.device_put(leaf, where)

        return jax.tree_util.tree_map_with_path(place, params, specs)

    def _rows(self, pairs: Sequence[Pair]) -> list[_Row]:
        """The rows of all pairs, longest first."""
        rows: dict[tuple[int, ...], _Row] = {}
        for number, (context, continuation) in enumerate(pairs):
            if not context:
                raise UserError("A text to score has no context: begin it with <s>.")
            if len(continuation) > self.max_len:
                raise UserError(
                    f"A continuation has {len(continuation)} tokens, more than the model's context "
                    f"of {self.max_len}: score it in parts."
                )
            if not continuation:
                continue
            whole = (*context, *continuation)
            self.truncated += len(whole) > self.max_len + 1
            inputs = whole[-self.max_len - 1 : -1]
            rows.setdefault(inputs, _Row(inputs)).add(number, continuation)
        return sorted(rows.values(), key=lambda row: len(row.inputs), reverse=True)

    def _batches(self, rows: list[_Row]) -> Iterator[list[_Row]]:
        """Rows that are scored together: those with few and those with many scored tokens apart."""
        few = [row for row in rows if len(row.targets) <= SCORED]
        many = [row for row in rows if len(row.targets) > SCORED]
        for kind in (few, many):
            at = 0
            while at < len(kind):
                size = self._size(len(kind[at].inputs), len(kind) - at)
                yield kind[at : at + size]
                at += size

    def _size(self, length: int, left: int) -> int:
        """B for rows up to `length`: a full batch, or a fourth or a sixteenth if few are left."""
        with jax.set_mesh(self._mesh):
            shards = axis_shards(*BATCH_AXES)
            unit = shards * (self._config.parallel.pieces or axis_shards("pipeline"))
        full = -(-TOKENS * shards // self._width(length) // unit) * unit
        parts = [-(-full // (fraction * unit)) * unit for fraction in (16, 4)]
        return next((part for part in parts if left <= part), full)

    def _width(self, length: int) -> int:
        """T for rows up to `length`."""
        width = SHORTEST
        while width < length:
            width *= 2
        return min(width, self.max_len)

    def _run(self, params: Any, rows: list[_Row]) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of each target, and whether it is the highest; both (B, C)."""
        T = self._width(max(len(row.inputs) for row in rows))
        most, C = max(len(row.targets) for row in rows), SCORED
        while most > C:
            C *= 8
        B, C = self._size(T, len(rows)), C if most > T else min(C, T)
        inputs_BT, length_B = np.zeros((B, T), np.int32), np.ones(B, np.int32)
        places_BC, targets_BC = np.zeros((B, C), np.int32), np.zeros((B, C), np.int32)
        for i, row in enumerate(rows):
            length_B[i] = len(row.inputs)
            inputs_BT[i, : length_B[i]] = row.inputs
            places_BC[i, : len(row.places)] = row.places
            targets_BC[i, : len(row.targets)] = row.targets
        arrays = [
            self._on_mesh(array, ("batch", "length") if array is inputs_BT else ("batch",))
            for array in (inputs_BT, length_B, places_BC, targets_BC)
        ]
        log_probs_BC, top_BC = jax.device_get(self._program(params, arrays, (B, T, C)))
        if not np.isfinite(log_probs_BC[: len(rows)]).all():
            raise UserError(
                "The model's log-probabilities are not finite numbers: its weights are too large, "
                "or broken."
            )
        return log_probs_BC, top_BC

    def _on_mesh(self, array: np.ndarray, axes: tuple[str, ...]) -> jax.Array:
        """Each process has the whole array, and gives its devices their parts."""
        where = sharding(self._mesh, axes)
        return jax.make_array_from_callback(array.shape, where, lambda part: array[part])

    def _program(self, params: Any, arrays: list[jax.Array], shape: tuple[int, int, int]) -> Any:
        with jax.set_mesh(self._mesh):
            if shape not in self._programs:
                everywhere = sharding(self._mesh, ())
                jitted = jax.jit(
                    self._score,
                    out_shardings=(everywhere, everywhere),
                    compiler_options=self._options,
                )
                self._programs[shape] = jitted.lower(params, *arrays).compile()
            return self._programs[shape](params, *arrays)

    def _score(
        self,
        params: Any,
        inputs_BT: jax.Array,
        length_B: jax.Array,
        places_BC: jax.Array,
        targets_BC: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        config, model = self._config, self._config.model
        family = model_of(model)
        B, T = inputs_BT.shape
        order_T = np.arange(T)
        if (shards := axis_shards("context")) > 1:
            order_T = zigzag(T, shards)
        place_BT = jnp.broadcast_to(order_T, (B, T))
        batch = {
            "inputs": inputs_BT[:, order_T],
            "segments": jnp.where(place_BT < length_B[:, None], 1, 2),
            # Padding does not make a text longer: some rotary scalings depend on the length.
            "positions": jnp.minimum(place_BT, length_B[:, None] - 1),
        }
        x_BTD = family.forward(params, batch, model, context_of(config)).x_BTD
        rows_BC = jnp.asarray(np.argsort(order_T))[places_BC]
        x_BCD = jnp.take_along_axis(x_BTD, rows_BC[..., None], axis=1)
        C, D = x_BCD.shape[1:]
        c = chunk_length(max(B // axis_shards(*BATCH_AXES), 1), C, config.compute.loss_chunk)

        def chunk(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            x_BcD, targets_Bc = part
            logits_BcV = family.logits(x_BcD, params, model)
            real_V = jnp.arange(logits_BcV.shape[-1]) < self._vocab_size
            logits_BcV = jnp.where(real_V, logits_BcV, -jnp.inf)
            picked_Bc = jnp.take_along_axis(logits_BcV, targets_Bc[..., None], axis=-1)[..., 0]
            log_probs_Bc = picked_Bc - jax.nn.logsumexp(logits_BcV, axis=-1)
            return log_probs_Bc, jnp.argmax(logits_BcV, axis=-1) == targets_Bc

        xs = (
            x_BCD.reshape(B, C // c, c, D).swapaxes(0, 1),
            targets_BC.reshape(B, C // c, c).swapaxes(0, 1),
        )
        log_probs, top = jax.lax.map(chunk, xs)
        return log_probs.swapaxes(0, 1).reshape(B, C), top.swapaxes(0, 1).reshape(B, C)
