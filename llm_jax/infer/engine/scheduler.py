"""Who gets a slot, and what is computed next.

A step admits what waits, computes one piece of the prompts that have been admitted, and then the
next tokens of all texts whose prompt is complete (continuous batching, Orca, Yu et al. 2022;
chunked prefill, Sarathi, Agrawal et al. 2023). A slot keeps its text after the end: a prompt that
begins alike goes on from there.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from llm_jax.config import UserError
from llm_jax.infer.engine.batch import Batch
from llm_jax.infer.engine.programs import Programs
from llm_jax.infer.engine.request import Finish, Request, Ticket, check_ids
from llm_jax.infer.engine.settings import EngineSettings, EngineStats, QueueFull
from llm_jax.infer.engine.slots import OnToken, Slot, place_for, told


class Scheduler:
    """The queue and the slots of an engine.

    Attributes:
      max_len: most tokens of a text, with its prompt.
      stats: counters.
    """

    def __init__(
        self,
        programs: Programs,
        batch: Batch,
        settings: EngineSettings,
        slack: int | None,
        mesh: Mesh | None,
    ) -> None:
        self.settings, self.max_len = settings, programs.shapes.max_len
        self._programs, self._batch, self._slack, self._mesh = programs, batch, slack, mesh
        self._slots = [Slot(number) for number in range(settings.slots)]
        self._waiting: deque[tuple[Ticket, OnToken | None]] = deque()
        self._cancelled: set[Ticket] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._admissions = 0
        self.stats = EngineStats(slots=settings.slots)
        self._compiled_before = programs.compiled

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
        check_ids(request, self._programs.shapes.vocab_size)
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

    def step(self) -> bool:
        """Admits, computes one piece of prompts and then steps of decoding; False: there is nothing
        to do. An error that is not a request's own ends them all, and the engine."""
        try:
            return self._step()
        except BaseException as error:
            self._fail(error)
            raise

    def _step(self) -> bool:
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
                # From here on it is found in its slot, whatever goes wrong.
                slot.ticket, slot.on_token = ticket, on_token
            if source is not None and source is not slot:
                self._batch.copy(source, slot)
            slot.reached = max(source.have, source.reached) if source is not None else 0
            self._admissions += 1
            slot.tokens, slot.have = list(request.prompt), place.shared
            slot.used = self._admissions
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
        ticket.finish_reason, ticket.error = (None if error else reason), error
        # The listener first: who waits for the end finds all that it has heard.
        failed = told(on_token, ticket, None)
        ticket.error = ticket.error or failed
        ticket.end()

    def _fail(self, error: BaseException) -> None:
        """Ends all requests: an error has come up that is not theirs."""
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
        self.stats.running = self.stats.waiting = 0

    @contextlib.contextmanager
    def _on_mesh(self) -> Iterator[None]:
        with on_mesh(self._mesh):
            yield


@contextlib.contextmanager
def on_mesh(mesh: Mesh | None) -> Iterator[None]:
    """The mesh as that of the programs that are called, in turn with other threads.

    Two programs over several devices that two threads start at once may come to the devices in
    different orders, and wait for each other without end. It may not be nested.
    """
    if mesh is None:
        yield
        return
    with _next:  # who waits longest is next: a thread that comes back at once waits here
        _running.acquire()
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _running.release()


_next, _running = threading.Lock(), threading.Lock()
