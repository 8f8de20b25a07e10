"""What a plan is: the run that a budget pays for, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from llm_jax.config import ModelConfig
from llm_jax.facts.counts import (
    TokenFlops,
    active_parameters,
    non_embedding_parameters,
    total_parameters,
)
from llm_jax.laws.hyperparameters import HyperParameters
from llm_jax.laws.law import Law, Optimum, Parametric
from llm_jax.plan.layout import Execution
from llm_jax.plan.limited_text import Source
from llm_jax.plan.request import Request
from llm_jax.plan.restarts import LONGEST, Restarts
from llm_jax.plan.sense import bounded, why_no_loss

CONTINUED = (
    "Training begins with the weights of {name}. A law predicts the loss of models that begin at "
    "random, so no loss is predicted. To know it: `llm-jax eval` gives today's loss on your text, "
    "and two short runs from these weights, of 1% and 2% of the tokens and with their own full "
    "decay of the learning rate, show how fast it falls."
)
ALREADY_READ = (
    "The weights of {name} have read {tokens:.3g} tokens of the law's own text, so the loss is "
    "that of one run that reads all of them; a learning rate that rises again costs a little more."
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that the budget pays for."""

    request: Request
    law: Law
    """The law of the request, with its limit of unique tokens, if any."""
    optimum: Optimum
    """The law's optimum for this budget, before an architecture is chosen."""
    model: ModelConfig
    flops_per_token: TokenFlops
    seq_len: int
    steps: int
    hyper: HyperParameters
    execution: Execution
    limits: tuple[str, ...] = ()
    """What makes the plan not worth its budget, in sentences; `--write` refuses such a run."""

    @property
    def batch_tokens(self) -> int:
        """Tokens per step."""
        return self.execution.batch_sequences * self.seq_len

    @property
    def tokens(self) -> int:
        """Training tokens."""
        return self.steps * self.batch_tokens

    @property
    def params(self) -> int:
        """All parameters of the model."""
        return total_parameters(self.model)

    @property
    def law_params(self) -> int:
        """Parameters as the law counts them; of the experts, only those that a token uses."""
        return (
            active_parameters(self.model)
            if self.law.counts == "all"
            else non_embedding_parameters(self.model)
        )

    @property
    def flops(self) -> float:
        """Exact training FLOPs, forward and backward."""
        return self.flops_per_token.train * self.tokens

    @property
    def chips(self) -> int:
        """Number of chips."""
        return self.execution.machine.chips

    @property
    def hours(self) -> float:
        """Wall hours with restarts, at the expected step time."""
        return self.steps * self.execution.time.expected / 3600 * (1 + self.overhead)

    @property
    def hours_range(self) -> tuple[float, float]:
        """Wall hours with restarts, at the lowest and the highest step time."""
        time = self.execution.time
        hours = self.steps / 3600 * (1 + self.overhead)
        return time.low * hours, time.high * hours

    @property
    def restarts(self) -> Restarts | None:
        """What failures cost; None on a CPU."""
        chip, memory = self.request.chip, self.execution.memory
        if chip.kind == "cpu":
            return None
        copied = memory["params"] + memory["moments"]
        return Restarts(
            rate=self.request.failures_per_chip_day * self.chips / 86_400,
            pause=copied * chip.devices_per_chip / chip.pcie_bandwidth,
            restart=60 * self.request.restart_minutes,
        )

    @property
    def overhead(self) -> float:
        """Time lost to failures, restarts and checkpoints, as a share of the time without them."""
        if self.request.restart_overhead is not None:
            return self.request.restart_overhead
        return self.restarts.overhead if self.restarts else 0.0

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds of training between checkpoints."""
        return self.restarts.interval if self.restarts else LONGEST

    @property
    def chip_hours(self) -> float:
        """Wall hours times chips."""
        return self.hours * self.chips

    @property
    def usd(self) -> float | None:
        """Cost of training in US dollars; None if the price is not known."""
        price = self.request.price
        return None if price is None else self.chip_hours * price

    @property
    def kwh(self) -> float | None:
        """Energy in kWh, including the data centre; None if the power is not known."""
        watts = self.request.watts or self.request.chip.watts
        return None if watts is None else self.chip_hours * watts / 1000 * self.request.pue

    @property
    def co2_kg(self) -> float | None:
        """Emissions in kg CO₂e; None if the energy is not known."""
        return None if self.kwh is None else self.kwh * self.request.carbon

    @property
    def mfu(self) -> float:
        """Model FLOPs per second over the peak of the chips, at the expected step time."""
        peak = self.chips * self.request.chip.peak(self.execution.layout.dtype)
        return self.flops_per_token.train * self.batch_tokens / self.execution.time.expected / peak

    @property
    def hfu(self) -> float:
        """The same, including the FLOPs that are recomputed."""
        executed = self.flops_per_token.executed(self.execution.layout.remat)
        return self.mfu * executed / self.flops_per_token.train

    @property
    def loss(self) -> float | None:
        """Predicted loss in nats per token; None if the law predicts none that can be."""
        return self._bounded[0]

    @property
    def interval(self) -> tuple[float, float] | None:
        """90% interval of the loss, within what a loss can be."""
        return self._bounded[1]

    @property
    def _bounded(self) -> tuple[float | None, tuple[float, float] | None]:
        if self.unknown_start:
            return None, None
        return bounded(self.law, self.model.vocab_size, self.law_params, self.law_tokens)

    @property
    def law_tokens(self) -> float:
        """Training tokens as the law counts them: with those that given weights have read."""
        given = self.request.given
        return self.tokens + ((given.read_before or 0) if given else 0)

    @property
    def unknown_start(self) -> bool:
        """Whether training begins with weights that the law does not know."""
        given = self.request.given
        return given is not None and given.weights and given.read_before is None

    @property
    def binding(self) -> Source | None:
        """The text that is read most often; None if the size of none is known."""
        return max(self.request.texts, key=lambda one: one.epochs(self.tokens), default=None)

    @property
    def epochs(self) -> float | None:
        """Times that this text is read; None if its size is not known."""
        return self.binding.epochs(self.tokens) if self.binding else None

    @property
    def warnings(self) -> list[str]:
        """Sentences about the law and the rule that a reader must know."""
        given, tokens = self.request.given, self.law_tokens
        withheld = why_no_loss(self.law, self.model.vocab_size, self.law_params, tokens)
        if given and self.unknown_start:
            withheld = CONTINUED.format(name=given.name)
        about_law = [withheld] if withheld else self.law.warnings(self.law_params, tokens)
        if given and given.read_before is not None:
            about_law.append(ALREADY_READ.format(name=given.name, tokens=given.read_before))
        found = [*about_law, *self.hyper.warnings]
        return [*found, *_about_experts(self)]


def _about_experts(plan: Plan) -> list[str]:
    """Whether the law is of models with as many experts as the plan's."""
    moe, law = plan.model.moe, plan.request.law
    fitted = law.experts if isinstance(law, Parametric) else 1
    times = moe.experts / moe.top_k if moe else 1
    if fitted == times:
        return []
    if fitted == 1:
        return [
            f"The law was fitted on dense models. It gets the {plan.law_params:,} parameters that "
            "a token uses, and does not know the gain from the other experts: "
            "--law ludziejewski-2025-e4 does."
        ]
    return [
        f"The law {law.name} is of models with {fitted} times as many experts as a token uses, and "
        f"this model has {times:g} times: its loss is not a prediction."
    ]
