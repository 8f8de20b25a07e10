"""What a run prints: its introduction, the figures of each step, the steps that were skipped."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from llm_jax.config import (
    ModelConfig,
    RecurrentConfig,
    RecurrentEncoderDecoderConfig,
    RunConfig,
    Word2VecConfig,
)
from llm_jax.config.wording import counted
from llm_jax.facts.counts import active_parameters, total_parameters
from llm_jax.facts.train_flops import train_flops
from llm_jax.models.common.attend import attention_of
from llm_jax.models.protocol import parameter_shapes
from llm_jax.parallel.mesh import used_axes
from llm_jax.runs.history import History
from llm_jax.runs.metric_names import (
    FAILED,
    LOSS_OF,
    SHARE,
    SPENT,
    TASK,
    own_figures,
)
from llm_jax.runs.rollbacks import Rollback
from llm_jax.runs.scores import of_last_version, scores_in_words
from llm_jax.runs.starts import TASKS, accounted, goodput, read_starts
from llm_jax.train.changes import next_rate, sentence, shortened
from llm_jax.train.clock import Clock
from llm_jax.train.metrics import METRICS_FILE, Log, read_metrics
from llm_jax.train.place import Place
from llm_jax.train.run_folder import in_words
from llm_jax.train.save_speed import Hold, SaveSpeed
from llm_jax.train.shares import Use
from llm_jax.train.step import Metrics
from llm_jax.train.task_scores import Pace


class Reporter:
    """Reads metrics from the device, and passes them to the log.

    Attributes:
      last: the newest figures: held-out `loss` and `bits_per_byte`, `train_loss`,
        `tokens_per_second`, `mfu`.
      streak, why: skipped steps in a row up to the newest one read, and why it was skipped.
    """

    def __init__(self, config: RunConfig, log: Log, clock: Clock, history: History) -> None:
        self.config, self.log, self.clock, self.history = config, log, clock, history
        self.last: dict[str, Any] = {}
        self.streak, self.why = 0, ""
        self._peak: float | None = None
        self._mark = (0, 0.0)
        self._pace = Pace()
        self._compared = False  # whether earlier starts scored other versions of the tasks

    def found(self, place: Place, rollbacks: list[Rollback], source: Path | None) -> None:
        """Prints what was found in the run's folder, and where the run begins or resumes.

        Args:
          source: the run that the config is from, if it is another one.
        """
        for note in place.checkpointer.notes:
            self.log.say(note)
        for back in rollbacks:
            batches = counted(back.batches, "batch")
            self.log.say(f"Leaving out {batches} after step {back.step}: {back.why}.")
        if place.saved is None:
            self._begins(source)
        else:
            self._resumes(place, place.saved)
        for change in filter(None, map(sentence, place.lines)):
            self.log.say(change)
        rate = next_rate(self.config, place.step)
        self.log.say(f"The next step's learning rate is {rate:.2e}.")

    def _begins(self, source: Path | None) -> None:
        parent = self.history.parent
        if parent:
            self.log.say(
                f"Beginning {self.config.out} with the weights of {parent['run']}, step "
                f"{parent['step']}, and a fresh optimizer."
            )
            return
        way = f"; --init {source} begins with the weights of that run" if source else ""
        self.log.say(
            f"Beginning {self.config.out} with random weights of seed {self.config.seed}{way}."
        )

    def _resumes(self, place: Place, step: int) -> None:
        sequences, tokens = self.history.sequences(step), self.history.tokens(step)
        self.log.say(
            f"Resuming {self.config.out} after step {step}: {sequences:,} sequences, "
            f"{tokens:,} tokens."
        )
        if not place.checkpointer.has_optimizer(step):
            self.log.say("The checkpoint has only weights: the optimizer starts fresh.")

    def finished(self, place: Place) -> dict[str, Any]:
        """Prints that nothing is left to do. Returns the last figures of earlier starts."""
        self.log.say(f"The run is finished: all its {place.step} steps are done.")
        unused = place.lines[-1].changed if place.lines else None
        if unused:
            self.log.say(
                f"Not used, since no step is left: {in_words(shortened(unused))}. Raise `steps` to "
                "continue the run."
            )
        starts = read_starts(Path(self.config.out))
        seconds = {name: round(value, 3) for name, value in accounted(starts).items()}
        return (place.measured or {}) | {"goodput": goodput(starts), "seconds": seconds}

    def introduce(self, mesh: Mesh, peak: tuple[float | None, str], read: list[Use]) -> None:
        """Prints what is about to be trained.

        Args:
          peak: as returned by `peak.peak_flops`.
          read: what the run reads of each source.
        """
        config, device = self.config, mesh.devices.flat[0].platform
        self._peak, source = peak
        if isinstance(config.model, RecurrentConfig | RecurrentEncoderDecoderConfig):
            attends, layer_kind = None, f"{config.model.cell} layers"
        elif isinstance(config.model, Word2VecConfig):
            attends, layer_kind = None, f"{config.model.method} by {config.model.negatives} samples"
        else:
            attends = attention_of(config, mesh, device)
            layer_kind = f"{attends.kind} attention"
        data = config.data
        first = (data.ramp_from or data.batch_size) * data.seq_len
        ramp = f" (from {first:,} in the first {data.ramp_steps:,})" if data.ramp_from else ""
        self.log.say(
            f"{config.name}: {_sizes(config)}, "
            f"{counted(config.steps, 'step')} of {config.batch_tokens:,} tokens{ramp}, "
            f"{self.history.tokens(config.steps) / 1e6:.1f} M tokens in all; "
            f"mesh {used_axes(mesh)}; {layer_kind}, {config.compute.dtype}; {source}"
        )
        if attends and attends.reason:
            self.log.say(f"The {device} attention kernel is not used: {attends.reason}.")
        if config.compute.compiler and device != "tpu":
            asked = ", ".join(config.compute.compiler)
            self.log.say(f"compute.compiler ({asked}) is for TPUs: it does nothing on a {device}.")
        for line in reading_sentences(read):
            self.log.say(line)

    def begin(self, step: int) -> None:
        """Steps are timed from here on."""
        self._mark = (step, self.clock.stepping)

    def account(self, step: int, metrics: Metrics, due: bool) -> None:
        """Reads the metrics of `step` from the device, and reports them if `due` or skipped."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        del values["count"]
        self.streak = int(values.pop("streak"))
        if self.streak:
            self._skipped(step, values)
        elif due:
            self._report(step, values)

    def _report(self, step: int, values: dict[str, float]) -> None:
        stepping = self.clock.stepping
        first, seconds = self._mark[0], stepping - self._mark[1]
        self._mark = (step, stepping)
        rate = (self.history.tokens(step) - self.history.tokens(first)) / seconds
        mfu = None
        if self._peak:
            mfu = rate * (train_flops(self.config) or 0.0) / self._peak
        speed = {"tokens_per_second": rate, "mfu": mfu}
        self.last |= {"train_loss": values["loss"]} | speed
        dropped = values.get("moe_dropped", 0.0)
        record = values | speed | {"goodput": self.clock.goodput, "time": time.time()}
        self.log.write(
            self._record("train", step) | record,
            f"step {step}/{self.config.steps}  loss {values['loss']:.4f}  "
            + (f"bits/byte {values['bits_per_byte']:.3f}  " if "bits_per_byte" in values else "")
            + f"grad {values['grad_norm']:.2f}  "
            f"lr {values['learning_rate']:.2e}  {rate:,.0f} tokens/s"
            + (f"  MFU {mfu:.0%}" if mfu is not None else "")
            + (f"  {dropped:.1%} of the assignments to experts dropped" if dropped else ""),
        )

    def _skipped(self, step: int, values: dict[str, float]) -> None:
        self.why = skip_reason(values["loss"], values["grad_norm"])
        self.log.write(
            self._record("skipped", step) | {"why": self.why, "skipped": values["skipped"]},
            f"step {step}/{self.config.steps}  SKIPPED: {self.why}; parameters and moments stay as "
            f"they were ({self.streak} in a row, {values['skipped']:.0f} in all)",
        )

    def validation(self, step: int, values: dict[str, float]) -> None:
        """Reports the held-out `loss`, `bits_per_byte` and figures after `step`."""
        self.last |= {"loss": values["loss"], "figures": own_figures(values)}
        line = f"step {step}/{self.config.steps}  validation loss {values['loss']:.4f}"
        if "bits_per_byte" in values:
            self.last["bits_per_byte"] = values["bits_per_byte"]
            line += f"  bits/byte {values['bits_per_byte']:.4f}"
        for name, value in self.last["figures"].items():
            line += f"  {name} {value:.4f}"
        for name, loss in values.items():
            if name.startswith(LOSS_OF):
                line += f"  {name.removeprefix(LOSS_OF)} {loss:.4f}"
        self.log.write(self._record("validation", step) | values, line)

    def tasks(
        self,
        step: int,
        figures: dict[str, float],
        versions: dict[str, str],
        failures: int,
        seconds: float,
    ) -> None:
        """Reports the scores after `step` (`TaskScores.measure`), which took `seconds`."""
        account = self.clock.account()
        share = account[TASKS] / max(sum(account.values()), 1e-9)
        spent = {SPENT: seconds, SHARE: share, FAILED: float(failures)}
        failed = f"; {counted(failures, 'task')} failed" if failures else ""
        self.log.write(
            self._record(TASK, step) | figures | versions | spent,
            f"step {step}/{self.config.steps}  {scores_in_words(figures)}  ({seconds:.1f} s, "
            f"{share:.1%} of the run's time so far{failed})",
        )
        if not self._compared:
            self._compared = True
            records = read_metrics(Path(self.config.out) / METRICS_FILE)
            for note in of_last_version(records)[1]:
                self.log.say(note)
        if advice := self._pace.advice(seconds, self.config.eval.scores_every or step):
            self.log.say(advice)

    def saving(self, step: int, hold: Hold, speed: SaveSpeed) -> None:
        """Reports that checkpoint `step` is being written, and for how long that held the loop."""
        waited = f", after {hold.waiting:.2f} s for the save before" if hold.waiting > 0.1 else ""
        self.log.write(
            self._record("save", step)
            | {
                "save_hold_seconds": hold.copying,
                "save_wait_seconds": hold.waiting,
                "save_bytes_per_process": speed.share,
                "save_deadline_seconds": float(speed.deadline),
            },
            f"step {step}/{self.config.steps}  saving {speed}; held the loop {hold.copying:.2f} s"
            f"{waited}",
        )

    def result(self, step: int) -> dict[str, Any]:
        """The last figures of the run, which stops after `step`."""
        last = self.last
        return {
            "step": step,
            "loss": last.get("loss"),
            "bits_per_byte": last.get("bits_per_byte"),
            "figures": last.get("figures", {}),
            "train_loss": last.get("train_loss"),
            "sequences": self.history.sequences(step),
            "tokens": self.history.tokens(step),
            "tokens_per_second": last.get("tokens_per_second"),
            "mfu": last.get("mfu"),
            "goodput": self.clock.goodput,
            "seconds": {name: round(value, 3) for name, value in self.clock.account().items()},
        }

    def _record(self, split: str, step: int) -> dict[str, Any]:
        return {"split": split, "step": step, "tokens": self.history.tokens(step)}


def reading_sentences(read: list[Use]) -> list[str]:
    """What a run reads of each source, and how often where that is more than once."""
    if len(read) == 1:
        epochs = read[0].epochs
        return [f"The training split is read {epochs:.1f} times."] if epochs > 1 else []
    whole = sum(use.tokens for use in read) or 1
    return [
        f"{use.text.name}: {use.tokens / whole:.2%} of what is read, {use.tokens:,} tokens, "
        f"{use.epochs:.3g} times its {use.text.tokens:,}."
        for use in read
    ]


def skip_reason(loss: float, grad_norm: float) -> str:
    """Why the guard skipped a step with this loss and gradient norm."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(grad_norm):
        return f"the gradient's norm is {grad_norm}"
    return f"the loss is {loss:.4f}, far above those before"


def _sizes(config: RunConfig) -> str:
    """How many parameters the model has, and how many of them a token uses."""
    model = config.model
    if not isinstance(model, ModelConfig) or model.kind != "decoder":
        leaves = jax.tree.leaves(parameter_shapes(model))
        return f"{sum(leaf.size for leaf in leaves) / 1e6:.2f} M parameters"
    size, active = total_parameters(model), active_parameters(model)
    of_these = f" ({active / 1e6:.2f} M for each token)" if active < size else ""
    return f"{size / 1e6:.2f} M parameters{of_these}"
