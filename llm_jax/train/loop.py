"""The training loop: batches in, metrics and checkpoints out.

Resume is a function of the step: the batch of step n is computed from (seed, n), so a run that was
killed and started again is bitwise the run that was never stopped. The loop never waits for the
step it has just dispatched: it reads the metrics of the one before.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from llm_jax.config import RunConfig
from llm_jax.model.quantize import require_library
from llm_jax.parallel.check import check_divisible
from llm_jax.parallel.mesh import make_mesh
from llm_jax.runs.claim import only_writer
from llm_jax.train import distributed
from llm_jax.train.checkpoint import Checkpointer, saved_steps
from llm_jax.train.clock import Clock
from llm_jax.train.feed import local_batches, open_dataset, padded_token_bytes, to_device
from llm_jax.train.metrics import Log, draw_curve
from llm_jax.train.platform import dispatch_for, peak_flops, runs_inline
from llm_jax.train.ramp import Stage, stages
from llm_jax.train.reporter import Reporter, measured_before
from llm_jax.train.rollback import batches_from, read_rollbacks, roll_back
from llm_jax.train.run_folder import claim_folder
from llm_jax.train.state import State, abstract_state, init_state, judged_parameters
from llm_jax.train.step import Batch, Metrics, compile_train_step
from llm_jax.train.stop import Stop
from llm_jax.train.trace import Trace
from llm_jax.train.trouble import FileTrouble
from llm_jax.train.validation import Validation

STDERR = 2
StepFunction = Callable[[State, Batch], tuple[State, Metrics]]


def train(config: RunConfig) -> dict[str, Any]:
    """Trains `config`, going on from the newest checkpoint in `config.out` if there is one.

    Returns:
      The run's last figures, and `exit_code`: 0 when all steps are done.

    Raises:
      ConfigError, UserError: before anything is written.
      Held: another process writes to the run's folder.
      FileTrouble: the disk is full or broken; the checkpoints before are whole.
      Diverged: too many steps in a row were skipped; the next start goes back to before them.
    """
    faulthandler.register(signal.SIGUSR1, file=STDERR)
    dispatch_for(config)
    distributed.join()
    with distributed.leaving_at_once(), Stop() as stop, contextlib.ExitStack() as held:
        try:
            with contextlib.closing(_Run(config, stop, held)) as run:
                return run.train()
        except OSError as error:
            whole = saved_steps(Path(config.out) / "checkpoints")
            raise FileTrouble(config.out, error, whole) from error


class _Run:
    """What one process holds while it trains."""

    def __init__(self, config: RunConfig, stop: Stop, held: contextlib.ExitStack) -> None:
        self.config, self.stop, self.out = config, stop, Path(config.out)
        self.clock = Clock(self.out, jax.process_index())
        self.mesh = make_mesh(config.parallel)
        self.inline = self.mesh.devices.flat[0].platform == "cpu" and runs_inline(config)
        check_divisible(config, self.mesh)
        require_library(config.compute)
        self.dataset = open_dataset(config)
        self.windows = local_batches(self.dataset, config, self.mesh, "train").windows
        writing = only_writer(self.out, "llm-jax train", inside=True, ask=distributed.first_asks)
        with stop.leaving_at_once():
            self.claim = held.enter_context(writing)
        changes = claim_folder(config, self.dataset.path / "tokenizer.model")
        self.rollbacks = read_rollbacks(self.out)
        self.checkpointer = Checkpointer(config, self.dataset.tokenizer.sha256)
        self.abstract = abstract_state(config, self.mesh)
        saved = self.checkpointer.newest(self.abstract)
        self.resuming, self.start = saved is not None, saved or 0
        self.done = self.start
        self.clock.begin(self.start)
        self.log = Log(config, self.start, quiet=jax.process_index() != 0)
        self.reporter = Reporter(config, self.log, self.clock)
        self.trace = Trace(config, self.log.say)
        self.reporter.found(self.checkpointer, changes, self.rollbacks, saved)

    def train(self) -> dict[str, Any]:
        config, clock, reporter = self.config, self.clock, self.reporter
        measured = measured_before(self.out, self.start) if self.resuming else None
        if self.start >= config.steps and measured:
            reporter.last = measured
            self.log.say(f"The run is finished: all its {config.steps} steps are done.")
            return self._result()
        with self.stop.leaving_at_once():
            with clock.phase("compile"):
                peak = peak_flops(config, self.mesh)
            reporter.introduce(self.mesh, peak, self.windows)
            with clock.phase("restore" if self.resuming else "startup"):
                state = self._first_state()
            with clock.phase("compile"):
                token_bytes_V = padded_token_bytes(self.dataset, config)
                ahead = [stage for stage in stages(config) if stage.end > self.start]
                compiled = [compile_train_step(s.config, self.mesh, token_bytes_V) for s in ahead]
                validation = Validation(self.dataset, config, self.mesh)
                distributed.wait_for_all("all have compiled")  # no part of anyone's first step
        if self.resuming and not measured and self._due(self.start, config.eval.every):
            self._evaluate(validation, state)  # a request to stop had interrupted it
        for stage, step_fn in zip(ahead, compiled, strict=True):
            state = self._steps(stage, step_fn, validation, state)
        if self.done:
            self._save(state)
        if "loss" not in reporter.last and self.stop.signal is None:
            self._evaluate(validation, state)
        with clock.phase("save"):
            self.checkpointer.wait()
            if jax.process_index() == 0:
                draw_curve(self.out)
            distributed.wait_for_all("all is written")  # no part of anyone's last step
        return self._result()

    def _steps(
        self, stage: Stage, step_fn: StepFunction, validation: Validation, state: State
    ) -> State:
        config, reporter = self.config, self.reporter
        pending: tuple[int, Metrics] | None = None
        reporter.begin(self.done)
        batches = local_batches(self.dataset, stage.config, self.mesh, "train", stage.offset)
        with contextlib.closing(batches_from(batches, self.done, self.rollbacks)) as source:
            for index, local in source:
                if index >= stage.end or self.stop.requested():
                    break
                self.trace.before(index + 1, state["step"])
                state, metrics = step_fn(state, to_device(local, self.mesh))
                self.done = step = index + 1
                if pending:
                    self._account(*pending)
                pending = (step, metrics)
                evaluates = self._due(step, config.eval.every)
                saves = self._due(step, config.checkpoint.every)
                near = self._due(step, config.checkpoint.local_every) and not saves
                if evaluates or saves or near or self.inline:
                    # Now, so that the step is not timed as evaluation, or as the next step.
                    self._account(*pending)
                    pending = None
                if evaluates:
                    self._evaluate(validation, state)
                if saves and not reporter.streak:
                    self._save(state)
                elif near and not reporter.streak:
                    self._save_near(state)
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
            raise roll_back(self.out, step, reporter.streak, reporter.why)

    def _due(self, step: int, every: int | None) -> bool:
        return every is not None and (step % every == 0 or step == self.config.steps)

    def _first_state(self) -> State:
        if not self.resuming:
            return init_state(self.config, self.mesh)
        return self.checkpointer.restore(self.abstract, self.start)

    def _save(self, state: State) -> None:
        if self.checkpointer.latest_step != self.done:
            self.claim.check()
            with self.clock.phase("save"):
                self.checkpointer.save(state, self.done)

    def _save_near(self, state: State) -> None:
        with self.clock.phase("save"):
            self.checkpointer.save_near(state, self.done)

    def _evaluate(self, validation: Validation, state: State) -> None:
        with self.clock.phase("eval"):
            values = validation.measure(judged_parameters(state), self.stop.requested)
        if values:
            self.reporter.validation(self.done, values)

    def _result(self) -> dict[str, Any]:
        saved = self.done or self.resuming
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
