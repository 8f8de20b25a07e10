"""A plan as plain values: the JSON of `llm-jax plan`, and the prediction that its run keeps."""

from __future__ import annotations

import dataclasses
from typing import Any

from llm_jax.config import to_dict
from llm_jax.facts.counts import active_parameters, cache_values, parameters
from llm_jax.plan.isoflop import candidates, flat_range
from llm_jax.plan.plan import Plan
from llm_jax.plan.request import Request
from llm_jax.plan.sense import bounded
from llm_jax.plan.sentences import reasons, warnings
from llm_jax.plan.storage import storage
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
    flat, points, loss = None, [], None
    vocab_size, best = plan.model.vocab_size, plan.optimum
    if not plan.unknown_start:
        if not serving:
            flat = flat_range(plan.law, budget, plan.law.optimum(budget).params)
        points = candidates(plan.law, budget, best.params, serving, vocab_size)
        loss, _ = bounded(plan.law, vocab_size, best.params, best.tokens)
    return {
        "limits": list(plan.limits),
        "given": _given(request),
        "optimum": dataclasses.asdict(best) | {"loss": loss},
        "params": plan.params,
        "active_params": active_parameters(plan.model),
        "cache_values": cache_values(plan.model),
        "tokens": plan.tokens,
        "tokens_per_param": plan.tokens / active_parameters(plan.model),
        "flops": plan.flops,
        "flops_6nd": 6 * active_parameters(plan.model) * plan.tokens,
        "loss": plan.loss,
        "loss_interval": None if plan.interval is None else list(plan.interval),
        "epochs": plan.epochs,
        "sources": sources(plan),
        "law": {"name": plan.law.name, "source": plan.law.source, "counts": plan.law.counts},
        "model": to_dict(plan.model),
        "params_by_part": parameters(plan.model),
        "seq_len": plan.seq_len,
        "batch_tokens": plan.batch_tokens,
        "steps": plan.steps,
        "learning_rate": plan.hyper.learning_rate,
        "mesh": {
            **run.layout.mesh,
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
            "math": run.time.math,
            "hbm": run.time.hbm,
            "host": run.time.host,
            "bubble": run.time.bubble,
            **run.time.axes,
        },
        "bound": run.time.bound,
        "hours": plan.hours,
        "hours_range": list(plan.hours_range),
        "chip_hours": plan.chip_hours,
        "usd": plan.usd,
        "usd_per_chip_hour": request.price,
        "price": price(request),
        "storage": storage(plan),
        "restarts": restarts(plan),
        "kwh": plan.kwh,
        "co2_kg": plan.co2_kg,
        "candidates": [
            {**vars(point), "interval": point.interval and list(point.interval)} for point in points
        ],
        "flat_params": None if flat is None else list(flat),
        "reasons": reasons(plan, flat),
        "warnings": warnings(plan),
    }


def _given(request: Request) -> dict[str, Any] | None:
    """The model that was given, as plain JSON values; `run`: it is a config of ours."""
    given = request.given
    if given is None:
        return None
    return {"name": given.name, "run": given.run is not None, "weights": given.weights}


def price(request: Request) -> dict[str, Any]:
    """Where the price of a chip-hour is from, as plain JSON values; `source` None: not known."""
    quote, given = request.quote, request.usd_per_hour
    return {
        "usd": given or (quote.usd if quote else None),
        "pricing": "given" if given else request.pricing,
        "source": "given" if given else quote.source if quote else None,
        "date": quote.date if quote else None,
        "discount": request.spot_discount,
    }


def restarts(plan: Plan) -> dict[str, Any]:
    """What failures cost, as plain JSON values; the rate is None where the share is given."""
    found = plan.restarts if plan.request.restart_overhead is None else None
    return {
        "overhead": plan.overhead,
        "failures_per_chip_day": plan.request.failures_per_chip_day if found else None,
        "failures": found.rate * plan.hours * 3600 if found else None,
        "restart_minutes": plan.request.restart_minutes if found else None,
        "checkpoint_seconds": plan.checkpoint_seconds,
    }


def sources(plan: Plan) -> list[dict[str, Any]]:
    """What a run reads of each text, as plain JSON values; `binding` marks the one read most."""
    return [
        {
            "name": source.name,
            "unique_tokens": source.unique,
            "share": source.share,
            "tokens": source.share * plan.tokens,
            "epochs": source.epochs(plan.tokens),
            "effective_tokens": source.effective(plan.tokens),
            "binding": source is plan.binding,
        }
        for source in plan.request.sources
    ]


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
        kwh=plan.kwh,
        law=plan.law.name,
        loss=plan.loss,
        loss_low=low,
        loss_high=high,
        law_text=law_text,
    )
