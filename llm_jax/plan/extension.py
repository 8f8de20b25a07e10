"""A second stage with longer sequences: its model, its plan, and what both stages cost together.

The rotary base grows with the sequences, so that the slowest pair of a head turns no further in
them than before: θ' = θ·s^(d/(d−2)) for sequences s times as long and heads of size d ("NTK-aware"
scaling; Peng et al. 2023, YaRN, §3.1). Llama 3 8B's 500,000 becomes 8.4 million for 16 times 8,192
tokens. A model with a frequency scaling already gets its `factor` times s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llm_jax.config import LongRope, ModelConfig, UserError
from llm_jax.config.wording import counted
from llm_jax.plan.given import Given
from llm_jax.plan.plan import Plan
from llm_jax.plan.planner import plan
from llm_jax.plan.request import LARGEST, LEAST_FLOPS

LAST_RATE = 0.1
"""Least learning rate of the second stage, as a fraction of the first's peak."""
SUMMED = ("hours", "chip_hours", "usd", "kwh", "co2_kg")


def longer(model: ModelConfig, before: int, length: int) -> ModelConfig:
    """`model` for sequences of `length` tokens, after training on sequences of `before` tokens.

    Raises:
      UserError: they are not longer, its positions are a learned table, or it has LongRoPE.
    """
    if length <= before:
        raise UserError(
            f"--extend is {length:,}, but the first stage has sequences of {before:,} tokens: give "
            "more."
        )
    if model.positions == "learned":
        raise UserError(
            f"--extend is {length:,}, but the model's positions are a learned table: choose a "
            "family with rotary positions, such as llama."
        )
    if isinstance(model.rope_scaling, LongRope):
        raise UserError(
            f"--extend is {length:,}, but the model has LongRoPE, whose factors were searched for "
            "its own lengths: choose a model with another rope scaling."
        )
    times = length / before
    changed: dict[str, Any] = {"max_seq_len": max(length, model.max_seq_len)}
    if model.rope_scaling is not None:
        scaling = model.rope_scaling
        changed["rope_scaling"] = replace(scaling, factor=scaling.factor * times)
    elif model.positions == "rope":
        theta = model.rope_theta * times ** (model.rotary_dim / max(model.rotary_dim - 2, 1))
        changed["rope_theta"] = float(f"{theta:.4g}")
    return replace(model, **changed)


def _factor(model: ModelConfig) -> float | None:
    """The factor of its frequency scaling, if it has one."""
    scaling = model.rope_scaling
    return None if scaling is None or isinstance(scaling, LongRope) else scaling.factor


def second_stage(first: Plan, length: int, tokens: float) -> Plan:
    """The plan of `tokens` tokens more, in sequences of `length`, on as many chips if they suit.

    Its learning rate is the last of the first stage, at least a tenth of the peak.

    Raises:
      UserError: the sequences are not longer, or they do not fit any machine.
    """
    request = first.request
    model = longer(first.model, first.seq_len, length)
    flops = 6.0 * first.law_params * tokens
    if not LEAST_FLOPS <= flops <= LARGEST:
        raise UserError(
            f"--extend-tokens is {tokens:.3g}, which are {flops:.3g} FLOPs of this model: give "
            f"tokens for {LEAST_FLOPS:g} to {LARGEST:g}."
        )
    rate = first.hyper.learning_rate * max(first.hyper.final, LAST_RATE)
    run = request.given.run if request.given else None
    if run is not None:
        run = replace(run, model=model, optim=replace(run.optim, learning_rate=rate))
    stage = replace(
        request, budget="flops", fixed=True, amount=flops,
        given=Given(name="the first stage", model=model, run=run, weights=True),
        params=float(first.law_params), tokens=tokens, seq_len=length, chips=first.chips,
        batch_tokens=float(max(first.batch_tokens, length)), unique_tokens=None, sources=(),
        inference_tokens=0.0, serving="",
    )  # fmt: skip
    try:
        made = plan(stage)
    except UserError:
        made = plan(replace(stage, chips=None))
        if request.chips is not None and made.chips > request.chips:
            raise
    hyper = replace(
        first.hyper, learning_rate=rate, source="the first stage's last rate", warnings=()
    )
    return replace(made, hyper=hyper)


def stage_result(first: Plan, second: Plan) -> dict[str, Any]:
    """The second stage as plain JSON values, with what both cost `together`."""
    run, model = second.execution, second.model
    layout = run.layout
    return {
        "seq_len": second.seq_len,
        "tokens": second.tokens,
        "steps": second.steps,
        "batch_tokens": second.batch_tokens,
        "learning_rate": second.hyper.learning_rate,
        "rope_theta": model.rope_theta,
        "rope_scaling_factor": _factor(model),
        "flops": second.flops,
        "accelerator": run.machine.name,
        "chips": second.chips,
        "mesh": layout.mesh,
        "accumulate": layout.accumulate,
        "remat": layout.remat,
        "memory_bytes": {**run.memory, "total": sum(run.memory.values())},
        "mfu": second.mfu,
        "step_seconds": [run.time.low, run.time.high],
        "bound": run.time.bound,
        "hours": second.hours,
        "hours_range": list(second.hours_range),
        "chip_hours": second.chip_hours,
        "usd": second.usd,
        "kwh": second.kwh,
        "reasons": stage_reasons(first, second),
        "together": together(first, second),
    }


def stage_reasons(first: Plan, second: Plan) -> list[str]:
    """One sentence for each choice of the second stage."""
    model, machine = second.model, second.execution.machine
    was, grown = (_factor(one.model) for one in (first, second))
    raised = f"its rotary base from {first.model.rope_theta:,.0f} to {model.rope_theta:,.0f}"
    if was is not None and grown is not None:
        raised = f"the factor of its frequency scaling from {was:g} to {grown:g}"
    turned = f"; that raises {raised} (NTK-aware scaling, Peng et al. 2023)"
    if model.positions != "rope":
        turned = ""  # ALiBi has no frequencies
    found = [
        f"Sequences of {second.seq_len:,} tokens are {second.seq_len / first.seq_len:.3g} times as "
        f"long{turned}.",
        f"The learning rate of {second.hyper.learning_rate:.3g} is where the first stage ends; no "
        "published rule gives one.",
        "The budget pays for the first stage; the second is added to it. No law predicts its loss.",
    ]
    if second.chips != first.chips:
        found.append(
            f"It runs on {machine.name}: a batch of "
            f"{counted(second.execution.batch_sequences, 'sequence')} does not split, or does not "
            f"fit, over the {first.chips:,} chips of the first stage."
        )
    return found


def together(first: Plan, second: Plan) -> dict[str, Any]:
    """Hours, chip-hours, dollars, energy and emissions of both stages; None if one is not known."""
    sums = {}
    for name in SUMMED:
        a, b = getattr(first, name), getattr(second, name)
        sums[name] = None if a is None or b is None else a + b
    return sums
