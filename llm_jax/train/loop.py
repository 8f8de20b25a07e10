"""The training loop: batches in, metrics and checkpoints out.

What step n reads is computed from the run's history and n (`course`). So a run that was killed and
resumed is bitwise identical to one that was never stopped. The loop never waits for the step it has
just dispatched: it reads the metrics of the one before.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from llm_jax.config import RunConfig
from llm_jax.config.grace import grace_seconds
from llm_jax.objectives.objective import objective_of
from llm_jax.runs.lineage import write_lineage
from llm_jax.runs.plan_file import PlanRecord
from llm_jax.runs.starts import TASKS
from llm_jax.train import distributed
from llm_jax.train.course import Stage, stages
from llm_jax.train.cpu_dispatch import dispatch_for
from llm_jax.train.damage import saved_steps
from llm_jax.train.failures import FileFailure, without_tensorstore_noise
from llm_jax.train.feed import padded_token_bytes, to_device, training_batches
from llm_jax.train.inherit import inherited_state, new_head_sentence
from llm_jax.train.last_save import save_near_first
from llm_jax.train.metrics import Record, draw_curve
from llm_jax.train.own_code import keep_code
from llm_jax.train.peak import peak_flops
from llm_jax.train.prepare import Prepared, prepare
from llm_jax.train.programs import Programs, StepFunction, compile_programs
from llm_jax.train.rollback import roll_back
from llm_jax.train.shares import uses
from llm_jax.train.state import State, judged_parameters
from llm_jax.train.step import Metrics
from llm_jax.train.stop import Stop
from llm_jax.train.task_scores import TaskScorerFor, TaskScores, require_scorer
from llm_jax.train.validation import Validation

STDERR = 2
Callback = Callable[[Record], object]


def train(
    config: RunConfig,
    *,
    plan: PlanRecord | None = None,
    init: str | None = None,
    branch: str | None = None,
    source: Path | None = None,
    callback: Callback | None = None,
    tasks: TaskScorerFor | None = None,
) -> dict[str, Any]:
    """Trains `config`, resuming from the newest checkpoint in `config.out` if there is one.

    Args:
      plan: what was predicted for `config`; it is kept in the run's folder for `report`.
      init: a run's folder, or `RUN@STEP`, whose weights a new run begins with.
      branch: a run's folder, or `RUN@STEP`, that a new run goes on from with everything: weights,
        optimizer, steps, and its place in the text.
      source: the run that the config is from. It is named if a new run does not have its weights.
      callback: called by process 0 with each record of `metrics.jsonl` as it is written. If it
        returns False, the run saves and stops as after Ctrl-C; with several processes it must not.
      tasks: what scores `eval.tasks`.

    Returns:
      The run's last figures, and `exit_code`: 0 when all steps are done.

    Raises:
      ConfigError, UserError: before anything is written.
      Held: another process writes to the run's folder.
      FileFailure: the disk is full or broken; earlier checkpoints are intact.
      Diverged: too many steps in a row were skipped; the next start goes back to before them.
    """
    require_scorer(config, tasks)
    grace = grace_seconds(os.environ)
    faulthandler.register(signal.SIGUSR1, file=STDERR)
    dispatch_for(config)
    distributed.join()
    with (
        distributed.leaving_at_once(),
        Stop(grace) as stop,
        contextlib.ExitStack() as held,
    ):
        listen = functools.partial(_tell, callback, stop) if callback else None
        try:
            with (
                without_tensorstore_noise(),
                contextlib.closing(
                    _Run(prepare(config, stop, held, plan, init, branch, source, listen), tasks)
                ) as run,
            ):
                return run.train()
        except OSError as error:
            whole = saved_steps(Path(config.out) / "checkpoints")
            raise FileFailure(config.out, error, whole) from error


def _tell(callback: Callback, stop: Stop, record: Record) -> None:
    if callback(record) is False:
        stop.ask()


class _Run(Prepared):
    """The state of one process during training.

    Attributes:
      done: steps that are done.
    """

    def __init__(self, prepared: Prepared, tasks: TaskScorerFor | None) -> None:
        super().__init__(**vars(prepared))
        self.done = self.start
        tokenizer = self.datasets[0].tokenizer
        self._tasks = TaskScores(self.config, self.mesh, tokenizer, tasks, self.log.say)
        self._leaving: threading.Timer | None = None
        """Ends the process, if the last save does not end in time."""

    def train(self) -> dict[str, Any]:
        config, clock, reporter = self.config, self.clock, self.reporter
        if self.place.finished:
            return self._result() | reporter.finished(self.place)
        resuming = self.place.saved is not None
        with self.stop.leaving_at_once():
            with clock.phase("compile"):
                peak = peak_flops(config, self.mesh)
            reporter.introduce(self.mesh, peak, uses(self.segments, self.text))
            for sentence in keep_code(config):
                self.log.say(sentence)
            with clock.phase("compile"):
                course = stages(config, self.history, self.rollbacks, self.text)
                ahead = [stage for stage in course if stage.end > self.start]
                validation = Validation(self.datasets, config, self.mesh)
                # On a CPU this would take the processors from the first step, so it waits until it
                # is needed. Elsewhere what cannot be compiled must fail before steps are paid for.
                at_once = self.mesh.devices.flat[0].platform != "cpu"
                programs = compile_programs(
                    [stage.config for stage in ahead],
                    self.mesh,
                    padded_token_bytes(self.datasets[0].tokenizer, config),
                    random_start=not resuming and self.history.parent is None,
                    also=[validation.compile] if at_once else [],
                )
            with clock.phase("restore" if resuming else "startup"):
                state = self._first_state(programs)
            with clock.phase("compile"):
                distributed.wait_for_all("all have compiled")  # before the first step is timed
        first, measured = resuming or self.history.parent, self.place.measured
        if first and not measured and self._due(self.start, config.eval.every):
            # A stop request interrupted this evaluation, or the weights are those of the parent.
            self._evaluate(validation, state)
        elif measured and not ahead:
            reporter.last |= measured  # only scores of tasks are missing
        if first and not self.place.scored and self._due(self.start, config.eval.scores_every):
            self._score_tasks(state)
        for stage in ahead:
            if self.done < stage.first:
                break  # stopped in an earlier stage
            step_fn = programs.steps[stage.config.data.batch_size]
            state = self._steps(stage, step_fn, validation, state)
        if self.done:
            self._save_near_first(state)
            self._save(state)
        if "loss" not in reporter.last and self.stop.signal is None:
            self._evaluate(validation, state)
        with clock.phase("save"):
            self.checkpointer.wait()
            if jax.process_index() == 0:
                draw_curve(self.out)
            distributed.wait_for_all("all is written")  # counted as saving, not as a step
        return self._result()

    def _steps(
        self, stage: Stage, step_fn: StepFunction, validation: Validation, state: State
    ) -> State:
        config, reporter = self.config, self.reporter
        pending: tuple[int, Metrics] | None = None
        reporter.begin(self.done)
        arrays = objective_of(config).arrays
        batches = training_batches(self.datasets, stage, self.mesh)
        with batches.iterate(self.done) as source:
            for index, local in source:
                if index >= stage.end or self.stop.requested():
                    break
                self.trace.before(index + 1, state["step"])
                state, metrics = step_fn(state, to_device(local, self.mesh, arrays))
                self.done = step = index + 1
                if pending:
                    self._account(*pending)
                pending = (step, metrics)
                evaluates = self._due(step, config.eval.every)
                scores = self._due(step, config.eval.scores_every)
                saves = self._due(step, config.checkpoint.every)
                near = self._due(step, config.checkpoint.local_every) and not saves
                if evaluates or saves or near or scores or self.inline:
                    # Read now, so that the step is not timed as evaluation or as the next step.
                    self._account(*pending)
                    pending = None
                if evaluates:
                    self._evaluate(validation, state)
                if saves and not reporter.streak:
                    self._save(state)
                elif near and not reporter.streak:
                    self._save_near(state)
                if scores:  # after the save, which they might outlast
                    self._score_tasks(state)
                self.checkpointer.check()
                self.clock.stepped(step)
                self.log.advance(step)
        if pending:
            self._account(*pending)
        return state

    def _account(self, step: int, metrics: Metrics) -> None:
        """Reads the metrics of `step`; may roll back."""
        reporter = self.reporter
        self.claim.check()
        reporter.account(step, metrics, self._due(step, self.config.log_every))
        if reporter.streak >= self.config.optim.skip_limit:
            self.checkpointer.wait()
            self.checkpointer.forget_near()
            raise roll_back(self.out, self.history, step, reporter.streak, reporter.why)

    def _due(self, step: int, every: int | None) -> bool:
        return every is not None and (step % every == 0 or step == self.config.steps)

    def _first_state(self, programs: Programs) -> State:
        if self.place.saved is not None:
            return self.checkpointer.restore(self.abstract, self.start)
        if programs.first_state is not None:
            return programs.first_state()
        assert self.history.parent is not None
        if said := new_head_sentence(self.config, self.history.parent):
            self.log.say(said)
        state = inherited_state(self.config, self.abstract, self.history.parent)
        self._start_save(state, 0)  # the parent may be deleted
        return state

    def _save(self, state: State) -> None:
        if self.checkpointer.latest_step != self.done:
            self.claim.check()
            with self.clock.phase("save"):
                self._start_save(state, self.done)

    def _save_near_first(self, state: State) -> None:
        with self.clock.phase("save"):
            self._leaving = save_near_first(
                self.checkpointer, self.stop, state, self.done, self.log.say
            )

    def _start_save(self, state: State, step: int) -> None:
        lineage = self.ancestry.at(step)
        hold = self.checkpointer.save(state, step, self.history.standing(step), lineage)
        self.reporter.saving(step, hold, self.checkpointer.speed)
        if jax.process_index() == 0:
            write_lineage(self.out, lineage)

    def _save_near(self, state: State) -> None:
        with self.clock.phase("save"):
            self.checkpointer.save_near(state, self.done)

    def _evaluate(self, validation: Validation, state: State) -> None:
        with self.clock.phase("compile"):
            validation.compile()
        with self.clock.phase("eval"):
            values = validation.measure(judged_parameters(state), self.stop.requested)
        if values:
            self.reporter.validation(self.done, values)

    def _score_tasks(self, state: State) -> None:
        before = self.clock.seconds[TASKS]
        with self.clock.phase(TASKS):
            params = judged_parameters(state)
            measured = self._tasks.measure(params, self.done, self.stop.requested)
        if measured:
            self.reporter.tasks(self.done, *measured, self.clock.seconds[TASKS] - before)

    def _result(self) -> dict[str, Any]:
        saved = self.done or self.checkpointer.latest_step is not None
        over = self.done >= self.config.steps
        return self.reporter.result(self.done) | {
            "checkpoint": str(self.checkpointer.folder / str(self.done)) if saved else None,
            "exit_code": 0 if over else self.stop.exit_code,
        }

    def close(self) -> None:
        self.trace.close(self.done)
        self.clock.close()
        self.log.close()
        self.checkpointer.close()
        if self._leaving:
            self._leaving.cancel()
