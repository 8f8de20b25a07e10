"""The engine: many texts at once in the slots of one cache, each as if it were alone."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jax.sharding import Mesh

from llm_jax.config import Architecture, ComputeConfig, UserError, generative_of
from llm_jax.infer.decoder import Params, compute_for_inference
from llm_jax.infer.engine.arrays import Memory
from llm_jax.infer.engine.batch import Batch
from llm_jax.infer.engine.cache import slack
from llm_jax.infer.engine.programs import Shapes, programs_for
from llm_jax.infer.engine.request import Request, Ticket
from llm_jax.infer.engine.scheduler import Scheduler, on_mesh
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.infer.engine.slots import OnToken
from llm_jax.infer.engine.speculative_batch import check_tokenizers, speculation
from llm_jax.infer.engine.weights import engine_params, untied
from llm_jax.parallel.mesh import batch_shards

if TYPE_CHECKING:
    from llm_jax.language_model import LanguageModel


class Engine(Scheduler):
    """Continues and scores texts. `submit` and `cancel` may be called from any thread, `step` by
    one at a time: the thread of `start`, or the caller of `run`.

    Args:
      mesh: devices to split it over; None: those of the model.
      draft: a smaller model of the same tokenizer, which drafts tokens (`speculative_batch.py`).
      frees: empties the `params` of both models leaf by leaf as its own are made, so that memory
        holds about one copy. Nothing else can use them then.

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
        frees: bool = False,
    ) -> None:
        if draft is not None:
            check_tokenizers(model.tokenizer, draft.tokenizer)
        run, vocab_size = model.run, model.tokenizer.vocab_size
        mesh = model.mesh if mesh is None else mesh
        self._begin(run.model, model.params, run.compute, vocab_size, settings, mesh, frees, draft)

    @classmethod
    def of_parameters(
        cls,
        config: Architecture,
        params: Params,
        compute: ComputeConfig,
        vocab_size: int,
        settings: EngineSettings,
        mesh: Mesh | None = None,
        *,
        frees: bool = False,
    ) -> Engine:
        """An engine without a `LanguageModel`.

        Args:
          params: tree of the family's `init`.
          vocab_size: tokens that may be chosen; the model may have more rows.
          frees: empties `params`, as of the constructor.
        """
        made = cls.__new__(cls)
        made._begin(config, params, compute, vocab_size, settings, mesh, frees)
        return made

    def _begin(
        self,
        config: Architecture,
        params: Params,
        compute: ComputeConfig,
        vocab_size: int,
        settings: EngineSettings,
        mesh: Mesh | None,
        frees: bool,
        draft: LanguageModel | None = None,
    ) -> None:
        model = generative_of(config, "the engine")
        max_len = longest_text(model.max_seq_len, settings.max_len)
        if mesh is not None:
            _check_slots(settings.slots, mesh)
        chunk = min(settings.prefill_chunk, max_len)
        with on_mesh(mesh):
            shapes = Shapes(
                untied(model), compute_for_inference(compute), vocab_size,
                settings.slots, max_len, chunk, mesh,
            )  # fmt: skip
            weights = engine_params(params, model, compute, mesh, settings.weights, frees=frees)
            loses = slack(model, max_len, chunk)
            if draft is None and not settings.speculate:
                programs = programs_for(shapes)
                batch = Batch(programs, weights)
            else:
                programs, batch = speculation(shapes, weights, settings, draft, frees)
        super().__init__(programs, batch, settings, loses, mesh)
        self._thread: threading.Thread | None = None

    def run(
        self,
        requests: Sequence[Request],
        on_token: Sequence[OnToken] = (),
        after_step: Callable[[], object] | None = None,
    ) -> list[Ticket]:
        """Answers all requests, in order of their number, however many they are. If that is
        interrupted, they are cancelled.

        Args:
          on_token: one for each request, as of `submit`; empty: none.
          after_step: called after each step, unless the engine has a thread, which takes them.

        Raises:
          UserError: one can never fit, or no token could be chosen for one.
        """
        listeners: Sequence[OnToken | None] = on_token or [None] * len(requests)
        tickets: list[Ticket] = []
        try:
            for request, listener in zip(requests, listeners, strict=True):
                tickets.append(self._submit(request, listener, math.inf))
            if self._thread is None:
                while not all(ticket.done for ticket in tickets) and self.step():
                    if after_step:
                        after_step()
            return [ticket.wait() for ticket in tickets]
        except BaseException:
            for ticket in tickets:
                self.cancel(ticket)
            raise

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or a step has met an error."""
        return self._closed

    @property
    def compile_seconds(self) -> float:
        """What compiling has taken so far, in calls that found their program not compiled."""
        return self._batch.compile_seconds

    @property
    def memory(self) -> Memory:
        """What its parameters and its cache take."""
        return self._batch.memory

    @property
    def params(self) -> Params:
        """The parameters as it reads them, each layer apart: of `self.config`."""
        return self._batch.params

    @property
    def config(self) -> Architecture:
        """The architecture of `params`: with an output matrix of its own."""
        return self._programs.shapes.model

    def warm_up(self) -> float:
        """Compiles all programs; returns the seconds that it took."""
        began = time.perf_counter()
        with self._on_mesh():
            self._batch.warm_up()
        self.stats.compiled = self._programs.compiled - self._compiled_before
        return time.perf_counter() - began

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
        while True:
            worked = self.step()
            with self._changed:
                if worked or self._waiting or self._cancelled:
                    continue
                if self._closed:
                    return
                self._changed.wait()


def longest_text(context: int, asked: int | None) -> int:
    """Most tokens of a text, with its prompt, where `EngineSettings.max_len` is `asked`.

    Raises:
      UserError: that is more than the model's context.
    """
    if asked is not None and asked > context:
        raise UserError(f"max_len is {asked}, more than the model's context of {context}.")
    return context if asked is None else asked


def _check_slots(slots: int, mesh: Mesh) -> None:
    shards = batch_shards(mesh)
    if slots % shards:
        raise UserError(
            f"slots is {slots}, which the {shards} batch shards of the mesh (replica x data x fsdp "
            f"x expert) do not divide: make it a multiple of {shards}."
        )
