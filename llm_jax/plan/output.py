"""A plan as a JSON object, as the config of a run, and as sentences."""

from __future__ import annotations

import dataclasses
from typing import Any

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
)
from llm_jax.config.wording import counted
from llm_jax.facts.counts import active_parameters, parameters
from llm_jax.laws.hyperparameters import HyperParameters
from llm_jax.plan.architecture import EMBEDDING_SHARE, VOCABULARIES, usual_ffn
from llm_jax.plan.isoflop import candidates, flat_range
from llm_jax.plan.layout import COST_SLACK, Execution
from llm_jax.plan.memory import HEADROOM
from llm_jax.plan.plan import Plan
from llm_jax.runs.plan_file import PlanRecord


def compute_flops(plan: Plan) -> float:
    """6·N·D of the law's optimum plus its serving: the compute of the iso-FLOP curve."""
    best = plan.optimum
    return 6 * best.params * best.tokens + 2 * best.params * plan.request.inference_tokens


def result(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values; docs/planner.md describes the fields."""
    request, run, machine = plan.request, plan.execution, plan.execution.machine
    budget = compute_flops(plan)
    serving = request.inference_tokens
    flat = flat_range(plan.law, budget, plan.law.optimum(budget).params) if not serving else None
    points = candidates(plan.law, budget, plan.optimum.params, serving)
    return {
        "optimum": dataclasses.asdict(plan.optimum),
        "params": plan.params,
        "active_params": active_parameters(plan.model),
        "tokens": plan.tokens,
        "tokens_per_param": plan.tokens / active_parameters(plan.model),
        "flops": plan.flops,
        "flops_6nd": 6 * active_parameters(plan.model) * plan.tokens,
        "loss": plan.loss,
        "loss_interval": None if plan.interval is None else list(plan.interval),
        "epochs": plan.epochs,
        "law": {"name": plan.law.name, "source": plan.law.source, "counts": plan.law.counts},
        "model": dataclasses.asdict(plan.model),
        "params_by_part": parameters(plan.model),
        "seq_len": plan.seq_len,
        "batch_tokens": plan.batch_tokens,
        "steps": plan.steps,
        "learning_rate": plan.hyper.learning_rate,
        "mesh": {
            "data": run.layout.data,
            "fsdp": run.layout.fsdp,
            "tensor": run.layout.tensor,
            "accelerator": machine.name,
            "topology": machine.piece.topology,
            "slices": machine.slices,
            "hosts": machine.piece.hosts * machine.slices,
        },
        "accumulate": run.layout.accumulate,
        "remat": run.layout.remat,
        "chips": plan.chips,
        "memory_bytes": {
            **run.memory,
            "total": sum(run.memory.values()),
            "capacity": int(request.chip.hbm_bytes / request.chip.devices_per_chip),
        },
        "mfu": plan.mfu,
        "hfu": plan.hfu,
        "step_seconds": [run.time.low, run.time.high],
        "roofline_seconds": {
            name: getattr(run.time, name) for name in ("math", "hbm", "fsdp", "tensor", "data")
        },
        "bound": run.time.bound,
        "hours": plan.hours,
        "hours_range": list(plan.hours_range),
        "chip_hours": plan.chip_hours,
        "usd": plan.usd,
        "usd_per_chip_hour": request.price,
        "kwh": plan.kwh,
        "co2_kg": plan.co2_kg,
        "candidates": [
            {**vars(point), "interval": point.interval and list(point.interval)} for point in points
        ],
        "flat_params": None if flat is None else list(flat),
        "reasons": reasons(plan, flat),
        "warnings": warnings(plan),
    }


def warnings(plan: Plan) -> list[str]:
    """Sentences that a reader must know before spending money."""
    request, found = plan.request, list(plan.warnings)
    if plan.loss is None:
        found.append(f"The law {plan.law.name} predicts sizes, not losses: no loss is given.")
    if plan.usd is None:
        found.append(
            f"No list price of {request.chip.name} is known: give --usd-per-hour for the cost."
        )
    elif request.usd_per_hour is None:
        found.append(
            f"The price of {request.chip.usd_per_hour} $ per chip-hour is an assumption "
            f"({request.chip.sources['usd_per_hour']}): give --usd-per-hour."
        )
    if plan.kwh is None:
        found.append(
            f"The power of {request.chip.name} is not published: give --watts for the energy."
        )
    if plan.epochs is not None and plan.epochs > 4:
        found.append(
            f"The data are read {plan.epochs:.1f} times. After about 4 times, repeated tokens are "
            "worth clearly less than new ones (Muennighoff et al. 2023)."
        )
    return found


def reasons(plan: Plan, flat: tuple[float, float] | None) -> list[str]:
    """One sentence for each choice of the plan."""
    request, run, model = plan.request, plan.execution, plan.model
    best, machine, time = plan.optimum, plan.execution.machine, plan.execution.time
    sentences = []
    if request.params is None and request.tokens is None:
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
    usual = usual_ffn(request.family, model.d_model, model.num_heads * model.head_dim)
    sentences.append(
        f"{counted(model.num_layers, 'layer')} of width {model.d_model} with "
        f"{counted(model.num_heads, 'head')} of {model.head_dim} and an ffn of {model.d_ff} "
        f"({model.d_ff / model.d_model:.2f} × the "
        f"width, usual {usual / model.d_model:.2f}) make {plan.params:,} parameters; the "
        "mesh divides all widths."
    )
    if request.vocab_size is None and model.vocab_size != VOCABULARIES[request.family][0]:
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
    kept = {"none": "keeps all activations", "dots": "keeps the outputs of matmuls"}
    sentences.append(
        f"The backward pass {kept.get(run.layout.remat, 'recomputes each block')}. That is the "
        f"fastest choice that leaves {HEADROOM:.0%} of the memory free."
    )
    softmaxes = " plus softmax" if request.chip.score_rate is not None else ""
    sentences.append(
        f"A step is bound by {time.bound}: compute {time.math:.3g} s at "
        f"{request.chip.attainable:.0%} of the peak{softmaxes}, memory {time.hbm:.3g} s, "
        f"communication {time.comms:.3g} s (fsdp {time.fsdp:.2g}, tensor {time.tensor:.2g}, "
        f"data {time.data:.2g})."
    )
    return [sentence for sentence in sentences if sentence]


EVAL_TOKENS = 131_072
"""Least number of validation tokens of an evaluation; it keeps the error below 0.01 nats."""


def run_config(plan: Plan, *, name: str, data: str, out: str | None = None) -> RunConfig:
    """The config of the plan's run, ready for `train` and `preflight`.

    Args:
      data: folder of the dataset.
      out: folder of the run; None: `runs/<name>`.
    """
    return training(
        plan.model,
        plan.execution,
        plan.hyper,
        steps=plan.steps,
        seq_len=plan.seq_len,
        name=name,
        data=data,
        out=out or f"runs/{name}",
    )


def prediction(plan: Plan, law_text: str | None = None) -> PlanRecord:
    """What the plan predicts for its run.

    Args:
      law_text: text that the law was fitted on, if it is not the text of the run.
    """
    time = plan.execution.time
    low, high = plan.interval or (None, None)
    return PlanRecord(
        params=plan.params,
        tokens=plan.tokens,
        step_seconds=time.expected,
        step_seconds_low=time.low,
        step_seconds_high=time.high,
        hours=plan.hours,
        machine=plan.execution.machine.name,
        usd=plan.usd,
        law=plan.law.name,
        loss=plan.loss,
        loss_low=low,
        loss_high=high,
        law_text=law_text,
    )


def training(
    model: ModelConfig,
    run: Execution,
    hyper: HyperParameters,
    *,
    steps: int,
    seq_len: int,
    name: str,
    data: str,
    out: str,
) -> RunConfig:
    """The config of a run.

    Args:
      run: the machine, mesh, batch and memory policy.
    """
    every = max(1, min(-(-steps // 4), round(1800 / run.time.expected)))
    batch_tokens = run.batch_sequences * seq_len
    return RunConfig(
        name=name,
        out=out,
        steps=steps,
        log_every=max(1, min(10, steps // 20)),
        model=model,
        compute=ComputeConfig(
            dtype="float32" if run.layout.dtype == "float32" else "bfloat16",
            remat=run.layout.remat,
            # On a CPU, written-out layers are faster, and they are few enough to compile.
            scan_layers=run.machine.chip.kind != "cpu",
        ),
        data=DataConfig(path=data, seq_len=seq_len, batch_size=run.batch_sequences),
        optim=OptimConfig(
            kind=hyper.optimizer,
            learning_rate=float(f"{hyper.learning_rate:.4g}"),
            warmup_steps=min(2000, max(1, round(hyper.warmup * steps))),
            final_fraction=hyper.final,
            b2=hyper.b2,
            weight_decay=hyper.weight_decay,
            accumulate=run.layout.accumulate,
        ),
        parallel=_parallel(run),
        checkpoint=CheckpointConfig(every=every),
        eval=EvalConfig(every=every, batches=max(8, -(-EVAL_TOKENS // batch_tokens))),
    )


def _parallel(run: Execution) -> ParallelConfig:
    """The mesh of a layout. Its data axis spans the TPU slices; they become the replicas."""
    layout, machine = run.layout, run.machine
    replica = machine.slices if machine.chip.torus else 1
    return ParallelConfig(
        replica=replica, data=layout.data // replica, fsdp=layout.fsdp, tensor=layout.tensor
    )


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
