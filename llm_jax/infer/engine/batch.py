"""The arrays of an engine: what its programs are called with, and what becomes of their results."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from llm_jax.config import UserError
from llm_jax.infer.decoder import Params, not_finite
from llm_jax.infer.engine.arrays import STEPS, Decoding, Made, Memory, Scores, bytes_of, no_stops
from llm_jax.infer.engine.programs import Programs
from llm_jax.infer.engine.request import KINDS, Finish, Kind, TokenOut
from llm_jax.infer.engine.slots import Slot, told
from llm_jax.infer.row_sampling import bias_row, prompt_counts, stack_rows
from llm_jax.infer.sampling import GREEDY
from llm_jax.parallel.mesh import batch_shards

MOST_ROWS = 8
"""Prompts that are computed together, if they are short."""
FEW_PIECES = 3
"""So many small pieces are computed rather than a large one."""
PATIENCE = 0.1
"""Seconds that one call of decoding should take at most: tokens stream, and requests wait, in
between."""


class Ended(NamedTuple):
    """How a text has ended."""

    reason: Finish
    error: UserError | None = None


class Batch:
    """The state of all slots on the device.

    Attributes:
      params: as of `engine_params`.
      tokens: new tokens made so far.
      drafted, accepted: tokens that were drafted so far, and those of them that were accepted.
      compile_seconds: what compiling took, in calls that found their program not compiled.
    """

    def __init__(self, programs: Programs, params: Params) -> None:
        self._programs, self.params = programs, params
        self._cache = programs.cache()
        shapes = programs.shapes
        self._slots, self._vocab = shapes.slots, shapes.model.vocab_size
        self._sampling = [GREEDY] * self._slots
        self._rows = stack_rows(self._sampling)
        self._seed_S = np.zeros(self._slots, np.uint32)
        self._stop_SK = no_stops(self._slots)
        self._shaping: Any = None
        self._biased: set[int] = set()
        self._step_seconds = 0.0
        self.tokens, self.compile_seconds = 0, 0.0
        self.drafted = self.accepted = 0
        self._behind = 0
        """Places behind a text that a call may write besides."""

    @property
    def memory(self) -> Memory:
        return Memory(bytes_of(self.params), bytes_of(self._cache))

    def warm_up(self) -> None:
        """Runs every program once, on no text."""
        for rows in sorted({1, self._together}):
            for size in (
                self._programs.shapes.pieces if rows == 1 else self._programs.shapes.pieces[:1]
            ):
                for scored in (False, True):
                    self._prefill([], rows, size, scored)
        for kind in KINDS:
            if kind == "shaped":
                self._need_shaping()
            self._decode([], 1, False, kind)
        self._cache = self._programs.copy(self._cache, np.int32(0), np.int32(0))
        self._set_shape(0, np.zeros(self._vocab, np.int32), np.zeros(self._vocab, np.float32))
        jax.block_until_ready(self._cache)

    # Admission.

    def copy(self, source: Slot, target: Slot) -> None:
        """Copies what a slot has in the cache."""
        numbers = np.int32(source.number), np.int32(target.number)
        self._cache = self._programs.copy(self._cache, *numbers)

    def admitted(self, slot: Slot) -> None:
        """Takes over the settings of a slot's new request."""
        assert slot.ticket is not None
        request, number = slot.ticket.request, slot.number
        if request.prompt_log_probs is not None:
            slot.ticket.prompt.append(TokenOut(request.prompt[0]))
        self._sampling[number] = request.sampling
        self._rows = stack_rows(self._sampling)
        self._seed_S[number] = request.seed
        self._stop_SK[number] = -1
        if request.sampling.min_tokens:
            self._stop_SK[number, : len(request.stop_ids)] = request.stop_ids
        if request.kind == "shaped":
            self._need_shaping()
            counts_V = prompt_counts(request.prompt, self._vocab)
            self._set_shape(number, counts_V, bias_row(request.sampling, self._vocab))
            self._biased.add(number)
        elif number in self._biased:
            zeros_V = np.zeros(self._vocab, np.float32)
            self._set_shape(number, zeros_V.astype(np.int32), zeros_V)
            self._biased.remove(number)

    def _need_shaping(self) -> None:
        if self._shaping is None:
            self._shaping = self._programs.shaping()

    def _set_shape(self, number: int, counts_V: np.ndarray, bias_V: np.ndarray) -> None:
        put, at = self._programs.set_row, np.int32(number)
        self._shaping = self._shaping._replace(
            counts_SV=put(self._shaping.counts_SV, at, counts_V),
            bias_SV=put(self._shaping.bias_SV, at, bias_V),
        )

    # Prompts.

    @property
    def _together(self) -> int:
        """Rows of a call for several prompts."""
        mesh = self._programs.shapes.mesh
        return 1 if mesh and batch_shards(mesh) > 1 else min(self._slots, MOST_ROWS)

    def prefill(self, slots: Sequence[Slot]) -> None:
        """One piece of the prompts of `slots`, of which the first is the most urgent."""
        first, sizes = slots[0], self._programs.shapes.pieces
        scored = _scored(first)
        size = sizes[0] if first.prompt_left <= FEW_PIECES * sizes[0] else sizes[-1]
        chosen, rows = [first], 1
        if size == sizes[0] and len(slots) > 1 and self._together > 1:
            alike = [slot for slot in slots if _scored(slot) == scored]
            rows, chosen = self._together, alike[: self._together]
        scores = self._prefill(chosen, rows, size, scored)
        for row, slot in enumerate(chosen):
            count = min(size, slot.prompt_left)
            if scores is not None:
                _add_scores(slot, scores, row, count)
            slot.have += count

    def _prefill(self, slots: Sequence[Slot], rows: int, size: int, scored: bool) -> Scores | None:
        token_RT = np.zeros((rows, size), np.int32)
        target_RT = np.zeros((rows, size), np.int32)
        slot_R = np.full(rows, self._slots, np.int32)
        start_R, count_R = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        length_R = np.ones(rows, np.int32)
        for row, slot in enumerate(slots):
            count, have = min(size, slot.prompt_left), slot.have
            token_RT[row, :count] = slot.tokens[have : have + count]
            target_RT[row, :count] = slot.tokens[have + 1 : have + count + 1]
            slot_R[row], start_R[row], count_R[row] = slot.number, have, count
            length_R[row] = len(slot.tokens)
        with self._compiling():
            self._cache, scores = self._programs.prefill(
                self.params, self._cache, token_RT, slot_R, start_R, count_R, length_R, target_RT,
                scored=scored,
            )  # fmt: skip
        return None if scores is None else jax.device_get(scores)

    # Decoding.

    def decode(
        self, slots: Sequence[Slot], busy: bool, waited_for: bool
    ) -> list[tuple[Slot, Ended]]:
        """Next tokens of `slots`; those that have ended, and how.

        Args:
          busy: a prompt is being computed, so one step is taken.
          waited_for: a request waits for a slot.
        """
        requests = [slot.request for slot in slots]
        kind = KINDS[max(KINDS.index(request.kind) for request in requests)]
        top = any(request.log_probs is not None for request in requests)
        steps = self._steps(slots, busy, waited_for)
        if kind == "shaped":
            self._allow(slots)
        began = time.perf_counter()
        made, count_S = self._decode(slots, steps, top, kind)
        self._step_seconds = (time.perf_counter() - began) / steps
        ends = [(slot, self._take(slot, made, int(count_S[slot.number]))) for slot in slots]
        return [(slot, end) for slot, end in ends if end is not None]

    def _steps(self, slots: Sequence[Slot], busy: bool, waited_for: bool) -> int:
        if busy or any(slot.constraint is not None for slot in slots):
            return 1
        left = [slot.left for slot in slots]
        within = int(PATIENCE / self._step_seconds) if self._step_seconds else STEPS
        return max(1, min(STEPS, min(left) if waited_for else max(left), within))

    def _decoding(self, slots: Sequence[Slot]) -> Decoding:
        token_S, position_S, left_S, made_S = np.zeros((4, self._slots), np.int32)
        for slot in slots:
            number = slot.number
            token_S[number], position_S[number] = slot.tokens[slot.have], slot.have
            left_S[number] = slot.left
            made_S[number] = slot.request.max_tokens - slot.left
        return Decoding(
            token_S, position_S, left_S, made_S, self._seed_S, self._rows, self._stop_SK
        )

    def _decode(
        self, slots: Sequence[Slot], steps: int, top: bool, kind: Kind
    ) -> tuple[Made, np.ndarray]:
        """The new tokens, and how many each slot has (S,)."""
        state = self._decoding(slots)
        shaping = self._shaping if kind == "shaped" else None
        with self._compiling():
            self._cache, shaping, made = self._programs.decode(
                self.params, self._cache, state, shaping, np.int32(steps), np.bool_(top), kind=kind
            )
        if shaping is not None:
            self._shaping = shaping
        if not top:
            made = made._replace(log_prob_Sn=None, top_id_SnA=None, top_log_prob_SnA=None)
        return jax.device_get(made), np.full(self._slots, steps)

    @contextlib.contextmanager
    def _compiling(self) -> Iterator[None]:
        """Counts the time of a call that compiles; JAX returns before the program has run."""
        before, began = self._programs.compiled, time.perf_counter()
        yield
        if self._programs.compiled > before:
            self.compile_seconds += time.perf_counter() - began

    def _allow(self, slots: Sequence[Slot]) -> None:
        """Has the constraints of `slots` say which tokens may come next."""
        allowed_SV = np.ones((self._slots, self._vocab), bool)
        for slot in slots:
            if slot.constraint is not None:
                allowed_V = slot.constraint.allowed()
                allowed_SV[slot.number] = False
                allowed_SV[slot.number, : len(allowed_V)] = allowed_V
        if self._programs.shapes.mesh is not None:
            where = self._shaping.allowed_SV.sharding
            allowed_SV = jax.device_put(allowed_SV, where)
        self._shaping = self._shaping._replace(allowed_SV=allowed_SV)

    def _take(self, slot: Slot, made: Made, count: int) -> Ended | None:
        """Adds a slot's new tokens to its answer; how it has ended, if it has."""
        request, number, ticket = slot.request, slot.number, slot.ticket
        assert ticket is not None
        count = min(count, slot.left)
        # The call went on to here, also if the text ends before.
        slot.reached = max(slot.reached, slot.have + count + self._behind)
        for i in range(count):
            if not made.finite_Sn[number, i]:
                return Ended("stop", not_finite())
            token = int(made.token_Sn[number, i])
            slot.have += 1
            self.tokens += 1
            if token in request.stop_ids:
                return Ended("stop")
            slot.tokens.append(token)
            out = _token_out(token, made, number, i, request.log_probs)
            ticket.tokens.append(out)
            if (error := told(slot.on_token, ticket, out)) is not None:
                return Ended("cancelled", error)
            if slot.constraint is not None:
                try:
                    slot.constraint.advance(token)
                except UserError as error:
                    return Ended("stop", error)
                if slot.constraint.done:
                    return Ended("stop")
        return Ended("length") if slot.left == 0 else None


def _scored(slot: Slot) -> bool:
    return slot.request.prompt_log_probs is not None


def _add_scores(slot: Slot, scores: Scores, row: int, count: int) -> None:
    ticket, request = slot.ticket, slot.request
    assert ticket is not None
    for i in range(count):
        top = _pairs(scores.top_id_RTA[row, i], scores.top_log_prob_RTA[row, i],
                     request.prompt_log_probs or 0)  # fmt: skip
        token = request.prompt[slot.have + i + 1]
        ticket.prompt.append(TokenOut(token, float(scores.log_prob_RT[row, i]), top))


def _token_out(token: int, made: Made, number: int, i: int, count: int | None) -> TokenOut:
    if count is None:
        return TokenOut(token)
    top = _pairs(made.top_id_SnA[number, i], made.top_log_prob_SnA[number, i], count)
    return TokenOut(token, float(made.log_prob_Sn[number, i]), top)


def _pairs(ids: np.ndarray, values: np.ndarray, count: int) -> tuple[tuple[int, float], ...]:
    return tuple(zip(ids[:count].tolist(), values[:count].tolist(), strict=True))
