"""The engine: many texts at once in the slots of one cache, each as if it were alone.

A step admits what waits, computes one piece of the prompts that have been admitted, and then the
next tokens of all texts whose prompt is complete (continuous batching, Orca, Yu et al. 2022;
chunked prefill, Sarathi, Agrawal et al. 2023). A slot keeps its text after the end: a prompt that
begins alike goes on from there.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax
from jax.sharding import Mesh

from llm_jax.config import Architecture, ComputeConfig, UserError, generative_of
from llm_jax.infer.decoder import Params
from llm_jax.infer.engine.batch import Batch
from llm_jax.infer.engine.cache import slack
from llm_jax.infer.engine.programs import Shapes, programs_for
from llm_jax.infer.engine.request import Finish, Request, Ticket
from llm_jax.infer.engine.settings import EngineSettings, EngineStats, QueueFull
from llm_jax.infer.engine.slots import OnToken, Slot, place_for
from llm_jax.infer.engine.speculative_batch import check_tokenizers, speculation
from llm_jax.infer.engine.weights import engine_compute, engine_params, untied
from llm_jax.parallel.mesh import BATCH_AXES

if TYPE_CHECKING:
    from llm_jax.language_model import LanguageModel


class Engine:
    """Continues and scores texts. `submit` and `cancel` may be called from any thread, `step` by
    one at a time: the thread of `start`, or the caller of `run`.

    Args:
      draft: a smaller model of the same tokenizer, which drafts tokens (`speculative_batch.py`).

    Attributes:
      max_len: most tokens of a text, with its prompt.
      stats: counters.
    """

    def __init__(
        self,
        model: LanguageModel,
        settings: EngineSettings = EngineSettings(),  # noqa: B008 (it is frozen)
        *,
        mesh: Mesh | None = None,
        draft: LanguageModel | None = None,
    ) -> None:
        if draft is not None:
            check_tokenizers(model.tokenizer, draft.tokenizer)
        run, vocab_size = model.run, model.tokenizer.vocab_size
        self._begin(run.model, model.params, run.compute, vocab_size, settings, mesh, draft)

    @classmethod
    def of_parameters(
        cls,
        config: Architecture,
        params: Params,
        compute: ComputeConfig,
        vocab_size: int,
        settings: EngineSettings,
        mesh: Mesh | None = None,
    ) -> Engine:
        """An engine without a `LanguageModel`.

        Args:
          params: tree of the family's `init`.
          vocab_size: tokens that may be chosen; the model may have more rows.
        """
        made = cls.__new__(cls)
        made._begin(config, params, compute, vocab_size, settings, mesh)
        return made

    def _begin(
        self,
        config: Architecture,
        params: Params,
        compute: ComputeConfig,
        vocab_size: int,
        settings: EngineSettings,
        mesh: Mesh | None,
        draft: LanguageModel | None = None,
    ) -> None:
        model = generative_of(config, "the engine")
        self.settings = settings
        self.max_len = _max_len(model.max_seq_len, settings.max_len)
        if mesh is not None:
            _check_slots(settings.slots, mesh)
        chunk = min(settings.prefill_chunk, self.max_len)
        self._mesh = mesh
        with self._on_mesh():
            shapes = Shapes(
                untied(model), engine_compute(compute), vocab_size,
                settings.slots, self.max_len, chunk, mesh,
            )  # fmt: skip
            weights = engine_params(params, model, compute, mesh)
            self._slack = slack(model, self.max_len, chunk)
            if draft is None and not settings.speculate:
                self._programs = programs_for(shapes)
                self._batch = Batch(self._programs, weights)
            else:
                self._programs, self._batch, self._slack = speculation(
                    shapes, weights, self._slack, settings.speculate, draft
                )
        self._slots = [Slot(number) for number in range(settings.slots)]
        self._waiting: deque[tuple[Ticket, OnToken | None]] = deque()
        self._cancelled: set[Ticket] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._admissions = 0
        self.stats = EngineStats(slots=settings.slots)
        self._compiled_before = self._programs.compiled

    # Asking.

    def submit(self, request: Request, on_token: OnToken | None = None) -> Ticket:
        """Has a request wait for a slot.

        Args:
          on_token: called from the engine's thread for each new token, and with None at the end.

        Raises:
          UserError: it can never fit, or the engine is closed.
          QueueFull: as many wait as may.
        """
        return self._submit(request, on_token, self.settings.queue)

    def _submit(self, request: Request, on_token: OnToken | None, most: float) -> Ticket:
        need = len(request.prompt) + request.max_tokens
        if need > self.max_len:
            raise UserError(
                f"The prompt has {len(request.prompt)} tokens and max_tokens is "
                f"{request.max_tokens}, more than the {self.max_len} that a text may have: shorten "
                "one of them."
            )
        vocab_size = self._programs.shapes.vocab_size
        worst = max(request.prompt)
        if worst >= vocab_size or min(request.prompt) < 0:
            raise UserError(
                f"The prompt has token {worst if worst >= vocab_size else min(request.prompt)}: "
                f"give ids from 0 to {vocab_size - 1}."
            )
        ticket = Ticket(request)
        with self._changed:
            if self._closed:
                raise UserError("The engine is closed: it takes no more requests.")
            if len(self._waiting) >= most:
                raise QueueFull(f"{len(self._waiting)} requests wait already: try again later.")
            self._waiting.append((ticket, on_token))
            self.stats.waiting = len(self._waiting)
            self._changed.notify_all()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends a request. Its slot is free from the next step on."""
        with self._changed:
            if not ticket.done:
                self._cancelled.add(ticket)
                self._changed.notify_all()

    def run(self, requests: Sequence[Request], on_token: Sequence[OnToken] = ()) -> list[Ticket]:
        """Answers all requests, in order of their number, however many they are.

        Args:
          on_token: one for each request, as of `submit`; empty: none.

        Raises:
          UserError: one can never fit, or no token could be chosen for one.
        """
        listeners: Sequence[OnToken | None] = on_token or [None] * len(requests)
        tickets = [
            self._submit(request, listener, math.inf)
            for request, listener in zip(requests, listeners, strict=True)
        ]
        if self._thread is None:
            while not all(ticket.done for ticket in tickets) and self.step():
                pass
        return [ticket.wait() for ticket in tickets]

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or its thread has met an error."""
        return self._closed

    @property
    def compile_seconds(self) -> float:
        """What compiling has taken so far, in calls that found their program not compiled."""
        return self._batch.compile_seconds

    # Working.

    def warm_up(self) -> float:
        """Compiles all programs; returns the seconds that it took."""
        began = time.perf_counter()
        with self._on_mesh():
            self._batch.warm_up()
        self.stats.compiled = self._programs.compiled - self._compiled_before
        return time.perf_counter() - began

    def step(self) -> bool:
        """Admits, computes one piece of prompts and then steps of decoding; False: there is nothing
        to do."""
        with self._on_mesh():
            self._end_cancelled()
            self._admit()
            prefilling = [slot for slot in self._slots if slot.prompt_left]
            if prefilling:
                self._batch.prefill(sorted(prefilling, key=lambda slot: slot.used))
                self._end_scored()
            decoding = [slot for slot in self._slots if slot.decodes]
            if decoding:
                busy = any(slot.prompt_left for slot in self._slots)
                for slot, end in self._batch.decode(decoding, busy, bool(self._waiting)):
                    self._end(slot, end.reason, end.error)
        self.stats.tokens = self._batch.tokens
        self.stats.drafted, self.stats.accepted = self._batch.drafted, self._batch.accepted
        self.stats.running = sum(slot.ticket is not None for slot in self._slots)
        self.stats.compiled = self._programs.compiled - self._compiled_before
        return bool(prefilling or decoding)

    def _end_cancelled(self) -> None:
        with self._changed:
            cancelled, self._cancelled = self._cancelled, set()
            waiting = [one for one in self._waiting if one[0] in cancelled]
            for one in waiting:
                self._waiting.remove(one)
            self.stats.waiting = len(self._waiting)
        for ticket, on_token in waiting:
            self._tell_end(ticket, on_token, "cancelled", None)
        for slot in self._slots:
            if slot.ticket in cancelled:
                self._end(slot, "cancelled")

    def _admit(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    return
                ticket, on_token = self._waiting[0]
                request = ticket.request
                reuse = request.prompt_log_probs is None
                place = place_for(request.prompt, self._slots, self._slack, reuse)
                if place is None:
                    return
                self._waiting.popleft()
                self.stats.waiting = len(self._waiting)
            slot, source = place.slot, place.source
            if source is not None and source is not slot:
                self._batch.copy(source, slot)
            slot.reached = max(source.have, source.reached) if source is not None else 0
            self._admissions += 1
            slot.tokens, slot.have = list(request.prompt), place.shared
            slot.ticket, slot.on_token, slot.used = ticket, on_token, self._admissions
            slot.constraint = request.constraint.start() if request.constraint else None
            ticket.reused = place.shared
            self.stats.prompt_tokens += len(request.prompt)
            self.stats.reused_tokens += place.shared
            self.stats.prefix_hits += place.shared > 0
            self._batch.admitted(slot)
            if request.max_tokens == 0 and request.prompt_log_probs is None:
                self._end(slot, "length")
            else:
                self._end_scored()

    def _end_scored(self) -> None:
        """Ends the texts that were only to be scored."""
        for slot in self._slots:
            if slot.decodes and slot.ticket and slot.ticket.request.max_tokens == 0:
                self._end(slot, "length")

    def _end(self, slot: Slot, reason: Finish, error: UserError | None = None) -> None:
        ticket, on_token = slot.ticket, slot.on_token
        assert ticket is not None
        slot.ticket = slot.on_token = slot.constraint = None
        del slot.tokens[slot.have :]
        self._tell_end(ticket, on_token, reason, error)

    def _tell_end(
        self, ticket: Ticket, on_token: OnToken | None, reason: Finish, error: UserError | None
    ) -> None:
        self.stats.cancelled += reason == "cancelled"
        self.stats.finished += reason != "cancelled"
        ticket.end(None if error else reason, error)
        if on_token is not None:
            on_token(ticket, None)

    # The thread.

    def start(self) -> None:
        """Begins a thread that steps whenever there is something to do."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._loop, name="llm-jax engine", daemon=True)
        self._thread.start()

    def close(self, drain: bool = True) -> None:
        """Takes no more requests, and ends the thread.

        Args:
          drain: answer what was accepted; False: it is cancelled.
        """
        with self._changed:
            self._closed = True
            if not drain:
                self._cancelled.update(ticket for ticket, _ in self._waiting)
                self._cancelled.update(slot.ticket for slot in self._slots if slot.ticket)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        else:
            while self.step():
                pass

    def _loop(self) -> None:
        try:
            while True:
                worked = self.step()
                with self._changed:
                    if worked or self._waiting or self._cancelled:
                        continue
                    if self._closed:
                        return
                    self._changed.wait()
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Ends all requests: the thread has met an error that is not theirs."""
        sentence = UserError(f"The engine has stopped ({type(error).__name__}: {error}).")
        with self._changed:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
        for ticket, on_token in waiting:
            self._tell_end(ticket, on_token, "length", sentence)
        for slot in self._slots:
            if slot.ticket is not None:
                self._end(slot, "length", sentence)

    @contextlib.contextmanager
    def _on_mesh(self) -> Iterator[None]:
        if self._mesh is None:
            yield
        else:
            with jax.set_mesh(self._mesh):
                yield


def _max_len(context: int, asked: int | None) -> int:
    if asked is not None and asked > context:
        raise UserError(f"max_len is {asked}, more than the model's context of {context}.")
    return context if asked is None else asked


def _check_slots(slots: int, mesh: Mesh) -> None:
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if slots % shards:
        raise UserError(
            f"slots is {slots}, which the {shards} batch shards of the mesh (replica x data x fsdp "
            f"x expert) do not divide: make it a multiple of {shards}."
        )
