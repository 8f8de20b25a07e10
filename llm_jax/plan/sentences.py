"""A plan in sentences: its warnings, the reasons for its choices, its architecture in one line."""

from __future__ import annotations

import math

from llm_jax.config import ModelConfig
from llm_jax.config.wording import counted
from llm_jax.facts.counts import active_parameters
from llm_jax.plan.architecture import EMBEDDING_SHARE, VOCABULARIES, usual_ffn
from llm_jax.plan.given import Given
from llm_jax.plan.layout import COST_SLACK
from llm_jax.plan.memory import HEADROOM, Layout
from llm_jax.plan.plan import Plan
from llm_jax.plan.request import Request
from llm_jax.plan.restarts import FAILURES_PER_CHIP_DAY
from llm_jax.plan.roofline import StepTime

SHORT_STEP = 0.1
"""Seconds of a step on an accelerator below which no published run says anything."""

LOW_USE = 0.2
"""MFU below which fewer chips are worth a sentence; all but one published run are above 0.26."""


def warnings(plan: Plan) -> list[str]:
    """Sentences that a reader must know before spending money."""
    request, found = plan.request, list(plan.warnings)
    if plan.law.loss(plan.law_params, plan.tokens) is None:
        found.append(f"The law {plan.law.name} predicts sizes, not losses: no loss is given.")
    found += price_warnings(request)
    time = plan.execution.time
    if time.interval and not time.runs and not time.own_runs:
        found.append(
            f"No training speed on {request.chip.name} is published that the planner knows: hours "
            "and costs are of the mean of its kind."
        )
    if time.interval and not time.own_runs and time.expected < SHORT_STEP:
        found.append(
            f"A step of {time.expected:.2g} s is far shorter than those of the published runs (2 s "
            "and more): starting it may take longer than computing it, so the time is a lower "
            "bound."
        )
    if request.quantize != "none":
        found.append(
            f"The law is of runs in 16 bits or more: what {request.quantize} costs in loss is not "
            "in the prediction."
        )
    if request.chips is not None and plan.mfu < LOW_USE and request.chip.kind != "cpu":
        found.append(
            f"The chips reach {plan.mfu:.0%} of their peak: the batch is small for "
            f"{counted(plan.chips, 'chip')}, and fewer would cost less."
        )
    if plan.kwh is None:
        found.append(
            f"The power of {request.chip.name} is not published: give --watts for the energy."
        )
    if plan.binding and plan.epochs is not None and plan.epochs > 4:
        text = f"The source {plan.binding.name!r} is" if request.sources else "The data are"
        found.append(
            f"{text} read {plan.epochs:.1f} times. After about 4 times, repeated tokens are "
            "worth clearly less than new ones (Muennighoff et al. 2023)."
        )
    return found


def price_warnings(request: Request) -> list[str]:
    """What a reader must know of the price of a chip-hour."""
    found, kind, quote = [], request.pricing, request.quote
    if request.price is None:
        listed = "list" if kind == "on-demand" else kind
        found.append(
            f"No {listed} price of {request.chip.name} is known: give --usd-per-hour or --prices "
            "for the cost."
        )
    elif quote:
        found.append(
            f"The {kind} price of {quote.usd:g} $ per chip-hour is an assumption ({quote.source}, "
            f"{quote.date}): give --usd-per-hour or --prices."
        )
    if kind == "spot" or request.spot_discount:
        found.append(
            "The cloud may take spot machines back at any time, and publishes no rate. Add what "
            "you see to --failures-per-chip-day: time lost by preemptions is not in the plan."
        )
    return found


def reasons(plan: Plan, flat: tuple[float, float] | None) -> list[str]:
    """One sentence for each choice of the plan."""
    request, run, model = plan.request, plan.execution, plan.model
    best, machine, time = plan.optimum, plan.execution.machine, plan.execution.time
    sentences = []
    if request.given:
        sentences.append(_of_given(plan, request.given))
    elif request.fixed:
        sentences.append("--params and --tokens fix the run; the budget is what it costs.")
    elif request.params is None and request.tokens is None:
        sentences.append(
            f"{plan.law.name} puts the optimum of this budget at {best.params:.3g} parameters and "
            f"{best.tokens:.3g} tokens ({best.tokens / best.params:.1f} per parameter)."
        )
    else:
        fixed = "--params" if request.params is not None else "--tokens"
        sentences.append(f"{fixed} fixes the size; the budget decides the rest.")
    if request.inference_tokens:
        weighed = " at the price of training" if request.serving else ""
        sentences.append(
            f"The budget also pays for serving {request.inference_tokens:.3g} tokens{weighed}. So "
            "a smaller model with more training tokens is better (Sardana & Frankle 2023)."
        )
        sentences.append(request.serving)
    if flat is not None:
        sentences.append(
            f"The optimum is flat: from {flat[0]:.3g} to {flat[1]:.3g} parameters, the same loss "
            "costs at most 1% more compute."
        )
    if not request.given:
        usual = usual_ffn(request.family, model.d_model, model.num_heads * model.head_dim)
        sentences.append(
            f"{counted(model.num_layers, 'layer')} of width {model.d_model} with "
            f"{counted(model.num_heads, 'head')} of {model.head_dim} and an ffn of {model.d_ff} "
            f"({model.d_ff / model.d_model:.2f} × the "
            f"width, usual {usual / model.d_model:.2f}) make {plan.params:,} parameters; the "
            "mesh divides all widths."
        )
    own_vocabulary = request.vocab_size is not None or request.given is not None
    if not own_vocabulary and model.vocab_size != VOCABULARIES[request.family][0]:
        sentences.append(
            f"The vocabulary is {model.vocab_size:,}, because {VOCABULARIES[request.family][0]:,} "
            f"would put more than {EMBEDDING_SHARE:.0%} of the parameters into embeddings."
        )
    sentences.append(
        f"The batch of {plan.batch_tokens:,} tokens and the peak learning rate of "
        f"{plan.hyper.learning_rate:.3g} follow {plan.hyper.source}; the batch is rounded to the "
        "mesh."
    )
    if request.chips is None:
        sentences.append(
            f"{machine.name} is the fastest machine that can split the batch and costs at most "
            f"{COST_SLACK:.0%} more than the cheapest."
        )
    kept = {
        "none": "keeps all activations",
        "dots": "keeps the outputs of matmuls",
        "offload": "recomputes each block from its input, which waits in the host's memory",
    }
    sentences.append(
        f"The backward pass {kept.get(run.layout.remat, 'recomputes each block')}. That is the "
        f"fastest choice that leaves {HEADROOM:.0%} of the memory free."
    )
    reached = plan.hfu * time.expected / time.math
    sentences += _unusual(run.layout)
    softmaxes = " plus softmax" if request.chip.score_rate is not None else ""
    sentences.append(
        f"A step is bound by {time.bound}: compute {time.math:.3g} s at "
        f"{reached:.0%} of the peak{softmaxes}, memory {time.hbm:.3g} s, "
        f"communication {time.comms:.3g} s ({_by_axis(time)})."
    )
    if time.interval:
        factor = math.exp(time.interval)
        sentences.append(
            f"The range of the time is a 90% prediction interval, ×{factor:.2f} and ÷{factor:.2f}, "
            f"by {_seen(plan)}."
        )
    sentences += [_of_restarts(plan), _of_sources(plan)]
    return [sentence for sentence in sentences if sentence]


def _of_given(plan: Plan, given: Given) -> str:
    """What is kept of a given model, and what is not."""
    run, weights = given.run, "weights and " if given.weights else ""
    kept = f"The {weights}architecture of {given.name} {'are' if weights else 'is'} kept"
    if run:
        asked = run.data.seq_len == plan.seq_len and run.batch_tokens == plan.batch_tokens
        batch = (
            f"batches of {counted(run.data.batch_size, 'sequence')} of {run.data.seq_len:,} tokens"
        )
        changed = "" if asked else f", which are {plan.batch_tokens:,} tokens here"
        ramp = " without its ramp" if run.data.ramp else ""
        kept += f", and so are its {batch}{ramp}{changed}, its optimizer and its schedule"
    return f"{kept}; machine, mesh and memory policy are chosen anew."


def _of_restarts(plan: Plan) -> str:
    """What failures cost, and by which rate."""
    restarts = plan.restarts
    if restarts is None:
        return ""
    if plan.request.restart_overhead is not None:
        return f"--restart-overhead adds {plan.overhead:.2%} of time for restarts."
    if restarts.rate == 0:
        return f"Checkpoints take {plan.overhead:.2%} of the time; nothing fails."
    given = plan.request.failures_per_chip_day
    source = " (Llama 3 405B)" if given == FAILURES_PER_CHIP_DAY else ""
    expected = restarts.rate * plan.hours * 3600
    return (
        f"{given:.2g} failures per chip and day{source} are {expected:,.3g} on "
        f"{counted(plan.chips, 'chip')} in this time. Each costs "
        f"{plan.request.restart_minutes:g} min and the work since the last checkpoint, every "
        f"{restarts.interval / 60:.3g} min: {plan.overhead:.2%} more time (Daly 2006)."
    )


def _of_sources(plan: Plan) -> str:
    """Which of several sources binds."""
    binding = plan.binding
    if len(plan.request.sources) < 2 or binding is None:
        return ""
    return (
        f"Of the sources, {binding.name!r} binds: its {binding.unique:.3g} tokens are read "
        f"{plan.epochs:.3g} times. Effective tokens add up over the sources, each by itself "
        "(Muennighoff et al. 2023, eq. 5; they measured one source)."
    )


def _by_axis(time: StepTime) -> str:
    """Seconds of the mesh axes that communicate; of the usual three, also if they do not."""
    usual = ("fsdp", "tensor", "data")
    return ", ".join(
        f"{axis} {seconds:.2g}" for axis, seconds in time.axes.items() if seconds or axis in usual
    )


def _unusual(layout: Layout) -> list[str]:
    """What the plan does only because nothing simpler fits, or is as fast."""
    low = [
        name for name in ("moments", "gradients", "params") if getattr(layout, name) != "float32"
    ]
    found = []
    if low:
        names = " and ".join(low).replace("params", "parameters")
        rounded = ", rounded stochastically" if "params" in low else ""
        found.append(
            f"{names.capitalize()} are in bfloat16{rounded}, since the state in float32 does not "
            "fit."
        )
    if layout.context > 1:
        found.append(
            f"Each sequence is split over {layout.context} devices (context), since fewer do not "
            "fit, or would need a larger batch."
        )
    if layout.expert > 1:
        found.append(
            f"The experts are split over {layout.expert} devices (expert): their tokens are fewer "
            "bytes than their weights."
        )
    if layout.pipeline > 1:
        found.append(
            f"The layers are split into {layout.pipeline} stages (pipeline), through which "
            f"{layout.pieces} pieces of a batch go in {counted(layout.rounds, 'round')}: a stage "
            f"is idle for {layout.bubble:.0%} of its work, which is less than fsdp between nodes "
            "would take."
        )
    return found


def _seen(plan: Plan) -> str:
    """What the step time is fitted to."""
    time, chip = plan.execution.time, plan.request.chip.name
    if time.own_runs:
        mine = counted(time.own_runs, "run")
        return f"{mine} of your own on {chip}, which took {time.own:.2f} times the planner's time"
    if plan.model.moe:
        return "published runs of models with experts, which agree less with each other"
    if time.runs:
        return f"{counted(time.runs, 'published run')} on {chip}"
    return f"runs on other chips, since none on {chip} is published"


def describe(model: ModelConfig) -> str:
    """The architecture in one line."""
    return (
        f"{counted(model.num_layers, 'layer')}, width {model.d_model:,}, "
        f"{counted(model.num_heads, 'head')} of {model.head_dim} ({model.num_kv_heads} "
        f"key/value), ffn {model.d_ff:,}, vocabulary "
        f"{model.vocab_size:,}{', tied' if model.tie_embeddings else ''}{_experts(model)}"
    )


def _experts(model: ModelConfig) -> str:
    if model.moe is None:
        return ""
    return (
        f", {model.moe.experts} experts, {model.moe.top_k} per token "
        f"({active_parameters(model):,} active parameters)"
    )
