"""The training loop: batches in, metrics and checkpoints out.

Resume is a function of the step: the batch of step n is computed from (seed, n), so a run that was
killed and started again is bitwise the run that was never stopped. The loop never waits for the
step it has just dispatched: it reads the metrics of the one before.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import time
from pathlib import Path
from typing import Any

import jax

from llm_jax.config import RunConfig
from llm_jax.model.kernels import attention_choice
from llm_jax.parallel.mesh import check_divisible, make_mesh, used_axes
from llm_jax.plan.counts import token_flops, total_parameters
from llm_jax.train import distributed
from llm_jax.train.checkpoint import Checkpointer, FileTrouble, claim_folder
from llm_jax.train.clock import Clock
from llm_jax.train.feed import local_batches, open_dataset, padded_token_bytes, to_device
from llm_jax.train.metrics import Log, draw_curve
from llm_jax.train.platform import peak_flops
from llm_jax.train.state import State, abstract_state, init_state
from llm_jax.train.step import Metrics, compile_train_step
from llm_jax.train.stop import Stop
from llm_jax.train.validation import Validation

STDERR = 2


def train(config: RunConfig) -> dict[str, Any]:
    """Trains `config`, going on from the newest checkpoint in `config.out` if there is one.

    Returns:
      The run's last figures, and `exit_code`: 0 when all steps are done.

    Raises:
      ConfigError, UserError: before anything is written.
      FileTrouble: the disk is full or broken; the checkpoints before are whole.
    """
    faulthandler.register(signal.SIGUSR1, file=STDERR)
    distributed.join()
    with distributed.leaving_at_once(), Stop() as stop:
        try:
            with contextlib.closing(_Run(config, stop)) as run:
                return run.train()
        except OSError as error:
            raise FileTrouble(config.out, error) from error


class _Run:
    """What one process holds while it trains."""

    def __init__(self, config: RunConfig, stop: Stop) -> None:
        self.config, self.stop = config, stop
        self.clock = Clock(Path(config.out), jax.process_index())
        self.mesh = make_mesh(config.parallel)
        check_divisible(config, self.mesh)
        self.dataset = open_dataset(config)
        self.token_bytes_V = padded_token_bytes(self.dataset, config)
        self.batches = local_batches(self.dataset, config, self.mesh, "train")
        changes = claim_folder(config, self.dataset.path / "tokenizer.model")
        self.checkpointer = Checkpointer(config, self.dataset.tokenizer.sha256)
        saved = self.checkpointer.latest_step
        self.resuming, self.start = saved is not None, saved or 0
        self.log = Log(Path(config.out), config.steps, self.start, quiet=jax.process_index() != 0)
        self.flops_per_token = token_flops(config.model, config.data.seq_len).train
        with self.clock.phase("compile"):
            self.peak, peak_source = peak_flops(config, self.mesh)
        self.last: dict[str, Any] = {}
        self._mark = (self.start, 0.0)
        self._introduce(changes, peak_source)

    def _introduce(self, changes: list[str], peak_source: str) -> None:
        config, shape = self.config, used_axes(self.mesh)
        device = self.mesh.devices.flat[0].platform
        attends = attention_choice(config.model, config.compute, config.data.seq_len, device)
        self.log.say(
            f"{config.name}: {total_parameters(config.model) / 1e6:.2f} M parameters, "
            f"{config.steps} steps of {config.batch_tokens} tokens, "
            f"{config.batch_tokens * config.steps / 1e6:.1f} M tokens in all; mesh {shape}; "
            f"{attends.kind} attention, {config.compute.dtype}; {peak_source}"
        )
        if attends.reason:
            self.log.say(f"Not the {device}'s own attention kernel: {attends.reason}.")
        epochs = config.steps / self.batches.steps_per_epoch
        if epochs > 1:
            self.log.say(f"The training split is read {epochs:.1f} times.")
        if self.resuming:
            self.log.say(f"Going on in {config.out} after step {self.start}.")
            if not self.checkpointer.has_optimizer(self.start):
                self.log.say("The checkpoint holds weights alone: the optimizer starts afresh.")
        for change in changes:
            self.log.say(f"Changed since the run began: {change}")

    def train(self) -> dict[str, Any]:
        config, clock = self.config, self.clock
        with clock.phase("restore" if self.resuming else "startup"):
            state = self._first_state()
        with clock.phase("compile"):
            step_fn = compile_train_step(config, self.mesh, self.token_bytes_V)
            validation = Validation(self.dataset, config, self.mesh)
        self._mark = (self.start, clock.stepping)
        pending: tuple[int, Metrics] | None = None
        done = self.start
        with self.batches.iterate(self.start) as source:
            for index, local in source:
                if index >= config.steps or self.stop.requested(done):
                    break
                state, metrics = step_fn(state, to_device(local, self.mesh))
                done = index + 1
                if pending:
                    self._report(*pending)
                pending = (done, metrics) if self._due(done, config.log_every) else None
                evaluates = self._due(done, config.eval.every)
                if evaluates or self._due(done, config.checkpoint.every):
                    jax.block_until_ready(metrics)  # so that the step is not timed as evaluation
                if evaluates:
                    self._report_validation(done, validation, state)
                if self._due(done, config.checkpoint.every):
                    self._save(state, done)
                clock.stepped(done)
                self.log.advance(done)
        if pending:
            self._report(*pending)
        if done > self.start:
            self._save(state, done)
        if "loss" not in self.last:
            self._report_validation(done, validation, state)
        return self._finish(done)

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.config.steps

    def _first_state(self) -> State:
        if not self.resuming:
            return init_state(self.config, self.mesh)
        return self.checkpointer.restore(abstract_state(self.config, self.mesh), self.start)

    def _save(self, state: State, step: int) -> None:
        if self.checkpointer.latest_step != step:
            with self.clock.phase("save"):
                self.checkpointer.save(state, step)

    def _report(self, step: int, metrics: Metrics) -> None:
        """Reads the metrics of `step` from the device, which by now has dispatched the next."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        stepping = self.clock.stepping
        steps, seconds = step - self._mark[0], stepping - self._mark[1]
        self._mark = (step, stepping)
        rate = steps * self.config.batch_tokens / seconds
        mfu = rate * self.flops_per_token / self.peak
        del values["count"]
        record = {"split": "train", "step": step, "tokens": step * self.config.batch_tokens}
        record |= values | {"tokens_per_second": rate, "mfu": mfu, "time": time.time()}
        self.last |= {"train_loss": values["loss"], "tokens_per_second": rate, "mfu": mfu}
        self.log.write(
            record,
            f"step {step}/{self.config.steps}  loss {values['loss']:.4f}  "
            f"bits/byte {values['bits_per_byte']:.3f}  grad {values['grad_norm']:.2f}  "
            f"lr {values['learning_rate']:.2e}  {rate:,.0f} tokens/s  MFU {mfu:.0%}",
        )

    def _report_validation(self, step: int, validation: Validation, state: State) -> None:
        with self.clock.phase("eval"):
            values = validation.measure(state["params"])
        self.last |= values
        record = {"split": "validation", "step": step, "tokens": step * self.config.batch_tokens}
        self.log.write(
            record | values,
            f"step {step}/{self.config.steps}  validation loss {values['loss']:.4f}  "
            f"bits/byte {values['bits_per_byte']:.4f}",
        )

    def _finish(self, done: int) -> dict[str, Any]:
        with self.clock.phase("save"):
            self.checkpointer.wait()
        if jax.process_index() == 0:
            draw_curve(Path(self.config.out))
        finished = done == self.config.steps
        return {
            "step": done,
            "loss": self.last["loss"],
            "bits_per_byte": self.last["bits_per_byte"],
            "train_loss": self.last.get("train_loss"),
            "tokens": done * self.config.batch_tokens,
            "tokens_per_second": self.last.get("tokens_per_second"),
            "mfu": self.last.get("mfu"),
            "goodput": self.clock.goodput,
            "seconds": {name: round(value, 3) for name, value in self.clock.seconds.items()}
            | {"step": round(self.clock.stepping, 3)},
            "checkpoint": str(self.checkpointer.folder / str(done)),
            "exit_code": 0 if finished else self.stop.exit_code,
        }

    def close(self) -> None:
        self.log.close()
        self.checkpointer.close()
