"""What a start does before its first step: it checks, claims the folder, and opens the run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from llm_jax.config import RunConfig
from llm_jax.models.common.quantize import require_library
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.check import check_divisible
from llm_jax.parallel.mesh import make_mesh
from llm_jax.runs.claim import Claim, only_writer
from llm_jax.runs.history import History, Text
from llm_jax.runs.plan_file import PlanRecord
from llm_jax.runs.rollbacks import Rollback, read_rollbacks
from llm_jax.train import agree, distributed
from llm_jax.train.branch import open_branch
from llm_jax.train.checkpoint import Checkpointer
from llm_jax.train.clock import Clock
from llm_jax.train.course import Segment, segments
from llm_jax.train.cpu_dispatch import runs_inline
from llm_jax.train.feed import Datasets, held_out_batches, open_datasets, training_text
from llm_jax.train.lineage import Ancestry, began_with, described
from llm_jax.train.metrics import Log, Record
from llm_jax.train.place import Place, find_place
from llm_jax.train.reporter import Reporter
from llm_jax.train.state import (
    State,
    abstract_state,
    check_optimizer,
)
from llm_jax.train.stop import Stop
from llm_jax.train.trace import Trace

Listener = Callable[[Record], None]


@dataclass
class Prepared:
    """What one process has before its first step."""

    config: RunConfig
    stop: Stop
    clock: Clock
    mesh: Mesh
    datasets: Datasets
    claim: Claim
    abstract: State
    place: Place
    log: Log
    trace: Trace
    rollbacks: list[Rollback]
    reporter: Reporter

    @property
    def out(self) -> Path:
        return Path(self.config.out)

    @property
    def start(self) -> int:
        return self.place.step

    @property
    def checkpointer(self) -> Checkpointer:
        return self.place.checkpointer

    @property
    def history(self) -> History:
        return self.place.history

    @functools.cached_property
    def text(self) -> Text:
        """What the run reads."""
        return training_text(self.datasets, self.config)

    @functools.cached_property
    def segments(self) -> list[Segment]:
        """What every step of the run reads, those before its last change too."""
        return list(segments(self.history, self.rollbacks, self.text, self.config.steps))

    @functools.cached_property
    def ancestry(self) -> Ancestry:
        """What the run's checkpoints carry of their lineage."""
        before = self.place.lineage
        texts = dict(before["texts"]) if before else {}
        for (name, path), dataset in zip(
            self.config.data.folders.items(), self.datasets, strict=True
        ):
            info = dataset.info
            texts[info["fingerprint"]] = described(name, path, info, dataset.num_tokens("train"))
        began = before["began"] if before else began_with(self.history.parent)
        return Ancestry(self.config.name, self.history, self.segments, texts, began)

    @functools.cached_property
    def inline(self) -> bool:
        """Whether the steps run in this thread."""
        return self.mesh.devices.flat[0].platform == "cpu" and runs_inline(self.config)


def prepare(
    config: RunConfig,
    stop: Stop,
    held: contextlib.ExitStack,
    plan: PlanRecord | None,
    init: str | None,
    branch: str | None,
    source: Path | None,
    listen: Listener | None,
) -> Prepared:
    """Checks everything that can be refused, then claims the run's folder and opens the run.

    Args:
      init: run whose weights a new run begins with (`RUN` or `RUN@STEP`).
      branch: run that a new run is a branch of.
      held: keeps the claim on the folder until it is closed.
      listen: is given each record of the metrics.
    """
    agree.require_agreement(config, init, branch)
    out = Path(config.out)
    clock = Clock(out, jax.process_index(), jax.process_count())
    mesh, datasets = distributed.all_pass(lambda: _checked(config))
    agree.require_one_text(training_text(datasets, config).fingerprint)
    objective = objective_of(config)
    writing = only_writer(out, "llm-jax train", inside=True, ask=distributed.first_asks)
    with stop.leaving_at_once():
        claim = held.enter_context(writing)
    abstract = abstract_state(config, mesh)
    check_optimizer(config, abstract)
    if branch:
        open_branch(config, branch, datasets[0].tokenizer)
    place = find_place(config, plan, datasets, abstract, init)
    log = Log(config, quiet=jax.process_index() != 0, listen=listen)
    made = Prepared(
        config=config,
        stop=stop,
        clock=clock,
        mesh=mesh,
        datasets=datasets,
        claim=claim,
        abstract=abstract,
        place=place,
        log=log,
        trace=Trace(config, log.say),
        rollbacks=read_rollbacks(out),
        reporter=Reporter(config, log, clock, place.history),
    )
    if not place.finished:
        clock.begin(made.start, f"{mesh.devices.size} × {mesh.devices.flat[0].device_kind}")
        log.open(made.start)
        made.reporter.found(place, made.rollbacks, source)
        if objective.notice:
            log.say(objective.notice(datasets[0].tokenizer))
    return made


def _checked(config: RunConfig) -> tuple[Mesh, Datasets]:
    """The devices and the data of a run, which fit it and each other."""
    mesh = make_mesh(config.parallel)
    check_divisible(config, mesh)
    require_library(config.compute)
    datasets = open_datasets(config)
    for dataset in datasets:
        dataset.windows("train", config.data.seq_len)
        held_out_batches(dataset, config, mesh)
    return mesh, datasets
