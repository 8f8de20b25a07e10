"""From a budget to a run: model, data, batch, mesh, time and money, with a reason for each choice.

budget ─► law's optimum ─► architecture ─► batch and learning rate
       ─► slice, mesh and memory policy ─► step time ─► steps that the budget pays for
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from llm_jax.config import ComputeConfig, ModelConfig, UserError
from llm_jax.config.training import Quantize
from llm_jax.facts.counts import (
    active_parameters,
    non_embedding_parameters,
    token_flops,
    update_flops,
)
from llm_jax.facts.hardware import Chip
from llm_jax.laws import hyperparameters
from llm_jax.laws.hyperparameters import HyperParameters
from llm_jax.laws.law import Law, Optimum
from llm_jax.plan import architecture, layout
from llm_jax.plan.limited_text import data_constrained
from llm_jax.plan.memory import eight_bit
from llm_jax.plan.no_run import NoRun
from llm_jax.plan.objectives import lifetime_optimum
from llm_jax.plan.plan import Plan
from llm_jax.plan.refusal import nothing_fits
from llm_jax.plan.request import Request, check, check_flops
from llm_jax.plan.sense import text_is_the_limit

LOSS_CHUNK = ComputeConfig.loss_chunk


def law_of(request: Request) -> Law:
    """The law of the request, with its limit of unique tokens, if any.

    Raises:
      UserError: there is a limit, but the law is not parametric.
    """
    return data_constrained(request.law, request.texts) if request.texts else request.law


def law_optimum(request: Request, flops: float) -> Optimum:
    """The law's optimum for `flops`, before an architecture is chosen. Fixed sizes are kept.

    Raises:
      UserError: serving costs more than the budget, or the law cannot weigh it.
    """
    law = law_of(request)
    if request.params is not None or request.tokens is not None:
        params = request.params or flops / (6 * (request.tokens or 1))
        tokens = request.tokens or flops / (6 * params) - request.inference_tokens / 3
        if tokens <= 0:
            raise UserError(
                f"Serving {request.inference_tokens:.3g} tokens with {params:.3g} parameters "
                "already costs more than the budget: raise it, or lower --params."
            )
        return Optimum(params, tokens, law.loss(params, tokens))
    return lifetime_optimum(law, flops, request.inference_tokens)


def plan(request: Request) -> Plan:
    """The plan that spends the request's budget.

    How many FLOPs a dollar or a chip-hour buys depends on the plan. So the plan is made, priced and
    made again until its cost is near the budget. Then it gets the steps that the budget pays for.

    Raises:
      UserError: no run can have this budget, or the model does not fit any machine.
    """
    check(request)
    made = _settled(_priced(request))
    name = f" {made.binding.name!r}" if request.sources and made.binding else ""
    limit = text_is_the_limit(
        request, name, made.epochs, lambda other: _settled(_priced(other)).epochs
    )
    return replace(made, limits=(limit,)) if limit else made


def _priced(request: Request) -> Plan:
    """The plan whose cost is near the budget."""
    flops = request.amount if request.budget == "flops" else _first_guess(request)
    for _ in range(5):
        check_flops(request, flops)
        made = _design(request, flops)
        if request.budget == "flops":
            break
        ratio = request.amount / (_training_cost(made) + _serving_cost(made))
        if abs(ratio - 1) < 0.005:
            break
        flops *= ratio
    return made


def _first_guess(request: Request) -> float:
    hours = request.amount / (request.price or 1.0 if request.budget == "usd" else 1.0)
    return hours * 3600 * request.chip.peak(training_dtype(request.chip)) * 0.4


def training_dtype(chip: Chip) -> Literal["float32", "bfloat16"]:
    """The compute dtype: float32 on CPUs, where bfloat16 is slower, otherwise bfloat16."""
    return "float32" if chip.kind == "cpu" else "bfloat16"


def _training_cost(made: Plan) -> float:
    """Cost of training, in the unit of the budget."""
    amounts = {"flops": made.flops, "usd": made.usd, "chip-hours": made.chip_hours}
    amount = amounts[made.request.budget]
    assert amount is not None
    return amount


def _serving_cost(made: Plan) -> float:
    """Cost of serving in the unit of the budget, with its FLOPs at the price of training FLOPs."""
    served = 2 * active_parameters(made.model) * made.request.inference_tokens
    return _training_cost(made) * served / made.flops


def _settled(made: Plan) -> Plan:
    """The plan with the most steps that the budget pays for after serving."""
    request = made.request
    if request.tokens is not None:
        return made
    amount = request.amount - _serving_cost(made)
    steps = int(amount / (_training_cost(made) / made.steps) + 1e-9)
    if steps < 1:
        raise NoRun(
            f"The budget pays for less than one step of {made.batch_tokens:,} tokens with a model "
            f"of {made.params:,} parameters",
            "raise it.",
            "raise",
        )
    return replace(made, steps=steps)


def _design(request: Request, flops: float) -> Plan:
    """The plan for `flops` training FLOPs (and serving, if any)."""
    law = law_of(request)
    best = law_optimum(request, flops)
    if best.params < 1e4:
        raise NoRun(
            f"The budget of {flops:.3g} FLOPs gives only {best.params:.3g} parameters",
            "raise it.",
            "raise",
        )
    training = flops - 2 * best.params * request.inference_tokens
    seq_len = request.seq_len or architecture.default_seq_len(best.params)

    def law_size(model: ModelConfig) -> float:
        if request.params is None and law.counts == "non-embedding":
            return non_embedding_parameters(model)
        return active_parameters(model)

    def flops_size(model: ModelConfig) -> float:
        return token_flops(model, seq_len).train

    by_flops = request.tokens is not None and not request.fixed
    model = (
        request.given.model
        if request.given
        else architecture.choose(
            request.family,
            flops_size if by_flops else law_size,
            training / request.tokens if by_flops and request.tokens else best.params,
            params=best.params,
            seq_len=seq_len,
            vocab_size=request.vocab_size,
        )
    )
    per_token = token_flops(model, seq_len)
    tokens = request.tokens or training / per_token.train
    hyper = hyperparameters.recommend(
        request.rule or hyperparameters.rule_for(non_embedding_parameters(model)),
        non_embedding_parameters(model),
        tokens,
        training,
    )
    if request.given:
        hyper = request.given.hyper(hyper)
    if request.batch_tokens is not None:
        hyper = replace(hyper, batch_tokens=request.batch_tokens)
    execution = execution_of(
        model, request.chip, request.chips, hyper, tokens, seq_len, request.quantize
    )
    if (speed := request.speed) is not None:
        time = replace(
            execution.time, own=speed.factor, interval=speed.interval, own_runs=speed.runs
        )
        execution = replace(execution, time=time)
    return Plan(
        request=request,
        law=law,
        optimum=best,
        model=model,
        flops_per_token=per_token,
        seq_len=seq_len,
        steps=max(1, round(tokens / (execution.batch_sequences * seq_len))),
        hyper=hyper,
        execution=execution,
    )


def execution_of(
    model: ModelConfig,
    chip: Chip,
    chips: int | None,
    hyper: HyperParameters,
    tokens: float,
    seq_len: int,
    quantize: Quantize = "none",
) -> layout.Execution:
    """How `model` is trained on the chips: machine, mesh, batch and memory policy.

    Raises:
      UserError: the model does not fit any machine, or the batch is too small for all that do.

    Args:
      chips: number of chips; None: chosen.
      hyper: batch and optimizer.
      tokens: training tokens.
      quantize: `compute.quantize` of the run.
    """
    batch_tokens, dtype = max(hyper.batch_tokens, seq_len), training_dtype(chip)
    chosen = layout.choose(
        model,
        chip,
        chips,
        tokens=tokens,
        batch_tokens=batch_tokens,
        seq_len=seq_len,
        loss_chunk=LOSS_CHUNK,
        dtype=dtype,
        update_flops=update_flops(model, hyper.optimizer),
        eight_bit=eight_bit(quantize),
    )
    if chosen is None:
        raise nothing_fits(model, chip, chips, batch_tokens, seq_len, dtype)
    return chosen
